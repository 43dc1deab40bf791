"""servetune's search against random search for real: `python -m benchmarks.real SPEC`.

Runs of equal time on a real TorchServe, interleaved. Random search is the same machinery, pruning
included, with Optuna's random sampler and without the recommended starting points. In the end
what each run chose is measured again, interleaved: a search's own best value is inflated.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median
from typing import Annotated, Any
from unittest import mock

import typer
from optuna.samplers import RandomSampler
from rich.console import Console
from rich.table import Table

from search.cli.live import LiveView
from search.measure.configs import measure_configs
from search.report.formatting import format_settings
from search.spec.loading import load_spec
from search.spec.space import Space
from search.study import store
from search.study.driver import create_run, run_study
from serving.config import ServerConfig


@contextlib.contextmanager
def random_search() -> Iterator[None]:
    """Studies that begin in here know nothing but chance."""

    def sampler(space: Space, seed: int) -> RandomSampler:
        return RandomSampler(seed=seed)

    with (
        mock.patch.object(store, "CapacitySampler", sampler),
        mock.patch.object(Space, "guide", lambda space: []),
    ):
        yield


SEARCHES: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "servetune": contextlib.nullcontext,
    "random": random_search,
}


def main(
    spec: Annotated[Path, typer.Argument(help="what is tuned")],
    seconds: Annotated[float, typer.Option(min=60, help="of each run")] = 600,
    runs: Annotated[int, typer.Option(min=1, help="of each search")] = 3,
    rounds: Annotated[int, typer.Option(min=0, help="what was chosen, measured again")] = 2,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where all is written.")] = None,
) -> None:
    """Compare by what is chosen in equal time."""
    console = Console()
    base = load_spec(spec)
    chosen: list[ServerConfig] = []
    shown: list[dict[str, Any]] = []
    for number in range(runs):
        # The order turns around, so that a drift of the host favours none.
        for name in list(SEARCHES)[:: 1 if number % 2 == 0 else -1]:
            search = {"time_budget_s": seconds, "trials": 1000, "seed": number}
            ours = base.model_copy(
                update={"search": base.search.model_copy(update=search), "confirm": None}
            )
            console.print(f"{name}, run {number + 1} of {runs}", style="bold")
            with SEARCHES[name](), LiveView(console, 1000, seconds, plain=True) as view:
                found = run_study(create_run(ours), view)
            if found.interrupted:
                raise typer.Exit(130)
            best = found.best
            chosen.append(best.config if best else ServerConfig())
            shown.append(
                {
                    "run": f"{name} {number + 1}",
                    "trials": len(found.results),
                    "search_rps": best.sustained_rps if best else None,
                    "config": format_settings(chosen[-1]),
                }
            )
            if json_file:  # Hours of work are not lost with what comes after them.
                json_file.write_text(json.dumps(shown, indent=1))
    if rounds:
        measured = asyncio.run(measure_configs(base, chosen, rounds, lambda *now: None))
        for index, entry in enumerate(shown):
            entry["measured_rps"] = measured.rates(index)
    table = Table("run", "trials", "its own best rps", "measured again", "chosen")
    for entry in shown:
        again = ", ".join(f"{rate:.0f}" for rate in entry.get("measured_rps", []))
        best_rps = f"{entry['search_rps'] or 0:.0f}"
        table.add_row(entry["run"], str(entry["trials"]), best_rps, again, entry["config"])
    console.print(table)
    if rounds:
        for name in SEARCHES:
            rates = [median(e["measured_rps"] or [0.0]) for e in shown if e["run"].startswith(name)]
            console.print(f"{name}: {', '.join(f'{r:.0f}' for r in rates)} rps, measured again")
    if json_file:
        json_file.write_text(json.dumps(shown, indent=1))


if __name__ == "__main__":
    typer.run(main)
