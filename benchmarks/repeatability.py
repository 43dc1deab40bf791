"""How well a rate of the bundled model repeats: `make bench-repeat`.

Each run starts a new Ray session and a new TorchServe, as `servetune measure` does. A part of the
benchmark ends early if its next run would not fit into the time limit.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from loadgen.formatting import format_percent
from search.confirmation.rounds import measurement_order
from search.measure.configs import measure_configs
from search.spec.loading import load_spec
from search.spec.schema import StudySpec
from serving.configuration.config import ServerConfig

#: Two configurations that are good on a host with two cores.
PAIR = (
    ServerConfig(
        workers=2, batch_size=32, max_batch_delay_ms=50, mkl_threads=1, job_queue_size=1000
    ),
    ServerConfig(
        workers=2, batch_size=64, max_batch_delay_ms=50, mkl_threads=1, job_queue_size=1000
    ),
)


@dataclass(frozen=True)
class Rate:
    """The result of one run: sustained rate and closed-loop estimate, requests/s; None without."""

    sustained_rps: float | None
    capacity_rps: float | None


#: Runs by round, then by configuration.
Runs = Sequence[Sequence[Rate]]


@dataclass(frozen=True)
class Figure:
    """A figure of the benchmark.

    Attributes:
        planned, rounds: number of rounds wanted, and done with a rate of every configuration.
        value: the figure; None with too few rounds.
        target: the greatest value that meets the target.
    """

    name: str
    planned: int
    rounds: int
    values: tuple[float, ...]
    value: float | None
    target: float

    @property
    def verdict(self) -> str:
        """Whether the target is met."""
        if self.value is None:
            return "not known"
        verdict = "met" if self.value <= self.target else "missed"
        return verdict if self.rounds == self.planned else f"{verdict} in {self.rounds} rounds"


def coefficient_of_variation(values: Sequence[float]) -> float | None:
    """Return the standard deviation ÷ the mean; None for fewer than two values."""
    return stdev(values) / mean(values) if len(values) > 1 else None


def greatest_deviation(values: Sequence[float]) -> float | None:
    """Return the greatest distance from the median ÷ the median; None for fewer than two."""
    if len(values) < 2:
        return None
    middle = median(values)
    return max(abs(value / middle - 1) for value in values)


def ratio_figure(runs: Runs, planned: int) -> Figure:
    """Return how much the ratio of the second configuration to the first one varies."""
    ratios = tuple(
        second.sustained_rps / first.sustained_rps
        for first, second in runs
        if first.sustained_rps and second.sustained_rps
    )
    spread = coefficient_of_variation(ratios)
    return Figure("CV of the ratio of two", planned, len(ratios), ratios, spread, 0.06)


def single_figure(runs: Runs, planned: int) -> Figure:
    """Return how much the rate of one configuration varies."""
    rates = tuple(rate.sustained_rps for (rate,) in runs if rate.sustained_rps)
    spread = coefficient_of_variation(rates)
    return Figure("CV of one configuration", planned, len(rates), rates, spread, 0.05)


def default_figure(runs: Runs, planned: int) -> Figure:
    """Return how far the rates of TorchServe's default are from their median."""
    rates = tuple(rate.sustained_rps for (rate,) in runs if rate.sustained_rps)
    spread = greatest_deviation(rates)
    return Figure("default: deviation from the median", planned, len(rates), rates, spread, 0.2)


def run_rounds(
    measure: Callable[[Sequence[int]], dict[int, Rate]],
    count: int,
    rounds: int,
    ends_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> list[list[Rate]]:
    """Measure `count` configurations in up to this number of rounds.

    Args:
        measure: measures configurations in this order; returns their rates by index.
        ends_s: no round begins that would end after this time of the clock, if it takes as long
            as the longest so far. The first round of all begins in any case.
    """
    done: list[list[Rate]] = []
    longest_s = 0.0
    while len(done) < rounds and (not done or clock() + longest_s <= ends_s):
        begun_s = clock()
        rates = measure(measurement_order(len(done), range(count)))
        longest_s = max(longest_s, clock() - begun_s)
        done.append([rates[index] for index in range(count)])
    return done


def main(
    spec: Annotated[Path, typer.Argument(help="Specification of the model.")] = Path(
        "configs/quickstart.yaml"
    ),
    pairs: Annotated[int, typer.Option(min=0, help="Rounds of two good configurations.")] = 10,
    runs: Annotated[int, typer.Option(min=0, help="Runs of one configuration.")] = 5,
    defaults: Annotated[int, typer.Option(min=0, help="Runs of TorchServe's default.")] = 3,
    time_limit_s: Annotated[float, typer.Option(min=60, help="Limit of all parts.")] = 2700,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all rates to this file.")
    ] = None,
) -> None:
    """Measure how well the rates of a real server repeat, beside the targets."""
    console = Console()
    loaded = load_spec(spec)
    default = loaded.study_space().default_config
    parts = (
        (PAIR, pairs, ratio_figure, 0.6),
        (PAIR[:1], runs, single_figure, 0.8),
        ((default,), defaults, default_figure, 1.0),
    )
    begun_s, figures = time.monotonic(), []
    for configs, rounds, figure_of, share in parts:
        if rounds:
            ends_s = begun_s + share * time_limit_s
            measure = _measuring(loaded, configs, console)
            figures.append(figure_of(run_rounds(measure, len(configs), rounds, ends_s), rounds))
            if json_file:
                json_file.write_text(json.dumps([asdict(figure) for figure in figures], indent=1))
    console.print(_table(figures))


def _measuring(
    spec: StudySpec, configs: Sequence[ServerConfig], console: Console
) -> Callable[[Sequence[int]], dict[int, Rate]]:
    def measure(order: Sequence[int]) -> dict[int, Rate]:
        chosen = [configs[index] for index in order]
        measured = asyncio.run(measure_configs(spec, chosen, 1, lambda *progress: None))
        rates = {}
        for position, index in enumerate(order):
            [result] = measured.results[position]
            rates[index] = Rate(result.sustained_rps, result.capacity_rps)
            console.print(f"configuration {index}: {rates[index]}: {result.cause}", style="dim")
        return rates

    return measure


def _table(figures: Sequence[Figure]) -> Table:
    table = Table("figure", "rounds", "values", "result", "target", "")
    for figure in figures:
        value = "–" if figure.value is None else format_percent(figure.value, 1)
        table.add_row(
            figure.name,
            f"{figure.rounds} of {figure.planned}",
            ", ".join(f"{value:.3g}" for value in figure.values),
            value,
            f"≤ {format_percent(figure.target)}",
            figure.verdict,
        )
    return table


if __name__ == "__main__":
    typer.run(main)
