"""Compare servetune's search with others: `python -m benchmarks.real SPEC`.

Interleaved runs of equal time on a real TorchServe. The others use the same code, pruning
included, with other proposals: random ones, without the starting points, and those of Optuna's
Gaussian process. At the end, the chosen configuration of each run is measured again, because the
best rate of a search is biased upwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median
from typing import Annotated, Any
from unittest import mock

import optuna
import typer
from optuna.samplers import GPSampler
from rich.console import Console
from rich.table import Table

from search.cli.live import LiveView
from search.environment import log_level
from search.measure.configs import measure_configs
from search.report.formatting import format_settings
from search.sampler import search_model
from search.sampler.observations import Observation, Point
from search.sampler.sampler import CapacitySampler, distributions
from search.spec.loading import load_spec
from search.spec.space import Space
from search.study.driver import create_run, run_study
from serving.configuration.config import ServerConfig


class RandomProposals(CapacitySampler):
    """Proposes random points."""

    def next_point(
        self, observations: Sequence[Observation], running: Sequence[Point] = ()
    ) -> dict[str, Any]:
        """Return a random point."""
        return self.drawn_space.draw(self._random, 1)[0]


class GpProposals(CapacitySampler):
    """Proposes the points of Optuna's Gaussian process for the log of the rate.

    A point that it proposes again and again is replaced by a random one, as those of our sampler.
    """

    def next_point(
        self, observations: Sequence[Observation], running: Sequence[Point] = ()
    ) -> dict[str, Any]:
        """Return the point that it would try after these observations."""
        space = distributions(self.drawn_space)
        seed = int(self._random.integers(1 << 31))
        with log_level(["optuna"], logging.WARNING):
            sampler = GPSampler(seed=seed, n_startup_trials=1)
            study = optuna.create_study(direction="maximize", sampler=sampler)
        for o in [o for o in observations if o.is_own]:
            value = math.log(o.rate_rps) if o.served else -1.0
            # TorchServe's default may be outside of the space.
            with contextlib.suppress(ValueError):
                study.add_trial(
                    optuna.trial.create_trial(
                        params=dict(o.point), distributions=space, value=value
                    )
                )
        return study.ask(space).params


@contextlib.contextmanager
def gp_search() -> Iterator[None]:
    """Propose the points of Optuna's Gaussian process after the starting points."""
    with mock.patch.object(search_model, "CapacitySampler", GpProposals):
        yield


@contextlib.contextmanager
def random_search() -> Iterator[None]:
    """Propose random points, and remove the starting points of the guide."""
    with (
        mock.patch.object(search_model, "CapacitySampler", RandomProposals),
        mock.patch.object(Space, "recommended_points", lambda space: []),
    ):
        yield


SEARCHES: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "servetune": contextlib.nullcontext,
    "random": random_search,
    "Optuna GP": gp_search,
}


def main(
    spec: Annotated[Path, typer.Argument(help="Specification of the study.")],
    seconds: Annotated[float, typer.Option(min=60, help="Time budget of each run.")] = 600,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each search.")] = 3,
    rounds: Annotated[
        int, typer.Option(min=0, help="Rounds in which the chosen configurations are measured.")
    ] = 2,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File for the results, as JSON.")
    ] = None,
) -> None:
    """Compare the configurations that are chosen in equal time."""
    console = Console()
    base = load_spec(spec)
    chosen: list[ServerConfig] = []
    entries: list[dict[str, Any]] = []

    def save() -> None:
        if json_file:
            json_file.write_text(json.dumps(entries, indent=1))

    for number in range(runs):
        # The order alternates, so that a drift of the host favours no search.
        for name in list(SEARCHES)[:: 1 if number % 2 == 0 else -1]:
            limits = {
                "time_budget_s": seconds,
                "trials": 1000,
                "seed": number,
                "min_improvement_probability": 0.0,
            }
            search = base.search.model_copy(update=limits)
            run_spec = base.model_copy(update={"search": search, "confirm": None})
            console.print(f"{name}, run {number + 1} of {runs}", style="bold")
            with SEARCHES[name](), LiveView(console, 1000, seconds, plain=True) as view:
                outcome = run_study(create_run(run_spec), view)
            if outcome.interrupted:
                raise typer.Exit(130)
            best = outcome.best
            chosen.append(best.config if best else ServerConfig())
            entries.append(
                {
                    "run": f"{name} {number + 1}",
                    "trials": len(outcome.results),
                    "search_rps": best.sustained_rps if best else None,
                    "config": format_settings(chosen[-1]),
                }
            )
            save()  # Each run takes long: keep its result if a later step fails.
    if rounds:
        measured = asyncio.run(measure_configs(base, chosen, rounds, lambda *progress: None))
        for index, entry in enumerate(entries):
            entry["measured_rps"] = measured.rates(index)
    console.print(_table(entries))
    if rounds:
        for name in SEARCHES:
            rates = [median(e["measured_rps"] or [0.0]) for e in entries if _is_of(e, name)]
            console.print(f"{name}: {', '.join(f'{r:.0f}' for r in rates)} rps, measured again")
    save()


def _is_of(entry: dict[str, Any], search: str) -> bool:
    return bool(entry["run"].rpartition(" ")[0] == search)


def _table(entries: list[dict[str, Any]]) -> Table:
    table = Table("run", "trials", "best rate of the search, rps", "measured again, rps", "chosen")
    for entry in entries:
        measured = ", ".join(f"{rate:.0f}" for rate in entry.get("measured_rps", []))
        best_rps = f"{entry['search_rps'] or 0:.0f}"
        table.add_row(entry["run"], str(entry["trials"]), best_rps, measured, entry["config"])
    return table


if __name__ == "__main__":
    typer.run(main)
