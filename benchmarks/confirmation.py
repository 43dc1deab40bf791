"""Confirmations of simulated servers: `make bench-confirm`. No clock and no process is used.

Each confirmation runs the product's race on visits whose true rates are known. The noise of a
visit has two parts: one that each start of a server draws anew, and one that wanders with the
host and is averaged over the seconds of the closed loop. They have equal variances.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.wander import Floats, ornstein_uhlenbeck
from loadgen.formatting import format_percent
from search.confirmation.estimates import REFERENCE
from search.confirmation.noise import Variance, prior_of
from search.confirmation.race import Race, RaceRules

#: A visit of the bundled model: TorchServe starts, closed loop, TorchServe stops; seconds.
START_S, LOOP_S, STOP_S = 7.0, 8.0, 1.5
VISIT_S = START_S + LOOP_S + STOP_S
#: The measurement of the winner's sustained rate at the end; seconds.
VERIFY_S = 50.0
TIME_LIMIT_S = 900.0
#: Earlier runs of the host that the prior is from.
_EARLIER_RUNS, _EARLIER_DOF = 5, 20


@dataclass(frozen=True)
class Noise:
    """The noise of a visit.

    Attributes:
        sd: standard deviation of the logarithm of a visit's rate.
        wander_s: time constant of the part that wanders, seconds; None for a host that does not
            wander.
    """

    sd: float
    wander_s: float | None = None

    def visits(self, begun_s: Sequence[float], random: np.random.Generator) -> list[float]:
        """Return the noise of visits that begin at these ascending times."""
        own = random.standard_normal(len(begun_s))
        if self.wander_s is None:
            return [self.sd * float(value) for value in own]
        wander = _wander(begun_s, self.wander_s, random)
        return [self.sd * float(value) for value in (own + wander) / math.sqrt(2)]


def _wander(begun_s: Sequence[float], constant_s: float, random: np.random.Generator) -> Floats:
    """Return the means over LOOP_S of an Ornstein-Uhlenbeck process; each has variance 1."""
    step_s = 0.5
    count = int((begun_s[-1] + VISIT_S) / step_s) + 1
    values = ornstein_uhlenbeck(constant_s, step_s, count, random)
    size = int(LOOP_S / step_s)
    first = [int((s + START_S) / step_s) for s in begun_s]
    means = np.array([values[n : n + size].mean() for n in first])
    # The variance of a mean over LOOP_S of a process of variance 1.
    x = LOOP_S / constant_s
    return means / math.sqrt(2 * (x - 1 + math.exp(-x)) / x**2)


@dataclass(frozen=True)
class Case:
    """A confirmation to simulate.

    Attributes:
        rates: true rates: the reference, then the finalists.
        noise: of every visit.
        has_history: whether the host has a history of its noise.
    """

    name: str
    rates: tuple[float, ...]
    noise: Noise
    has_history: bool = False
    time_limit_s: float = TIME_LIMIT_S
    rules: RaceRules = field(default_factory=lambda: RaceRules(rounds=40))


@dataclass(frozen=True)
class Simulated:
    """The result of a simulated confirmation.

    Attributes:
        winner_share: true rate of the winner ÷ the highest true rate.
        differs: whether the two best are said to differ: a single finalist from the reference,
            otherwise the other best finalist from the winner.
        winner_error: estimate of the winner's rate ÷ the true rate − 1.
        ratio_covers: whether the interval of the ratio to the reference covers the true ratio.
        ratio_half_width: half of its relative width.
        prediction_covers: whether the prediction interval covers one more visit.
    """

    winner_share: float
    differs: bool
    winner_error: float
    ratio_error: float
    ratio_covers: bool
    ratio_half_width: float
    prediction_covers: bool
    visits: int
    rounds: int
    seconds: float
    is_paired: bool


def simulate(case: Case, seed: int) -> Simulated:
    """Run one confirmation."""
    random = np.random.default_rng(seed)
    prior = _prior(case.noise.sd, random) if case.has_history else None
    race = Race(len(case.rates), case.rules, prior)
    begun_s: list[float] = []
    spent_s = 0.0
    # The noise is drawn for the greatest number of visits, at the times at which they begin.
    most = int(case.time_limit_s / VISIT_S) + 2 * len(case.rates)
    noise = iter(case.noise.visits([n * VISIT_S for n in range(most)], random))
    while due := race.due():
        if spent_s + len(due) * VISIT_S + VERIFY_S > case.time_limit_s + VISIT_S / 2:
            break
        rates: dict[int, float | None] = {}
        for index in due:
            rates[index] = case.rates[index] * math.exp(next(noise))
            begun_s.append(spent_s)
            spent_s += VISIT_S
        race.record(rates)
    return _judge(case, race, len(begun_s), spent_s + VERIFY_S, random)


def _prior(sd: float, random: np.random.Generator) -> Variance | None:
    """Return the prior of a host whose earlier runs had about this noise, to 30 %."""
    history = [
        Variance(
            (sd * math.exp(0.3 * random.standard_normal())) ** 2
            * random.chisquare(_EARLIER_DOF)
            / _EARLIER_DOF,
            _EARLIER_DOF,
        )
        for _ in range(_EARLIER_RUNS)
    ]
    return prior_of(history)


def _judge(
    case: Case, race: Race, visits: int, seconds: float, random: np.random.Generator
) -> Simulated:
    winner = race.best()
    ratio, prediction = race.ratio_to_reference(winner), race.prediction(winner)
    assert ratio is not None and prediction is not None
    if len(case.rates) > 2:
        others = [i for i in race.finalists if i != winner]
        rival = max(others, key=lambda i: case.rates[i])
        comparison, drop = race.comparison(rival, winner), race.dropped.get(rival)
        differs = comparison is not None and comparison.excludes_one
        if drop is not None:
            differs = drop.shown is not None
    else:
        differs = ratio.excludes_one
    true_ratio = case.rates[winner] / case.rates[REFERENCE]
    next_rate = case.rates[winner] * math.exp(case.noise.sd * random.standard_normal())
    return Simulated(
        winner_share=case.rates[winner] / max(case.rates),
        differs=differs,
        winner_error=prediction.mean / case.rates[winner] - 1,
        ratio_error=ratio.mean / true_ratio - 1,
        ratio_covers=ratio.low <= true_ratio <= ratio.high,
        ratio_half_width=ratio.half_width,
        prediction_covers=prediction.low <= next_rate <= prediction.high,
        visits=visits,
        rounds=race.rounds,
        seconds=seconds,
        is_paired=race.estimates.is_paired,
    )


def simulate_all(case: Case, runs: int) -> list[Simulated]:
    """Run a case with the seeds 0 to `runs` − 1."""
    return [simulate(case, seed) for seed in range(runs)]


def cases() -> list[Case]:
    """Return every case of the benchmark."""
    noises = [Noise(sd) for sd in (0.03, 0.05, 0.08)]
    noises += [Noise(0.05, wander_s) for wander_s in (3.0, 15.0, 60.0, 300.0)]
    noises += [Noise(0.08, 60.0)]
    found = []
    for noise in noises:
        found += [
            Case("A/A: reference and finalist", (100.0, 100.0), noise),
            Case("5 %: reference and finalist", (100.0, 105.0), noise),
            Case("A/A: two finalists", (50.0, 100.0, 100.0), noise),
            Case("5 %: two finalists", (50.0, 100.0, 105.0), noise),
            Case("A/A: three finalists", (50.0, 100.0, 100.0, 100.0), noise),
        ]
    with_history = [Noise(0.05), Noise(0.08, 60.0)]
    for noise in with_history:
        found.append(Case("A/A: reference and finalist", (100.0, 100.0), noise, True))
        found.append(Case("5 %: reference and finalist", (100.0, 105.0), noise, True))
    found.append(Case("A/A in 4 min", (100.0, 100.0, 100.0), Noise(0.05), False, 240.0))
    found.append(Case("A/A in 4 min", (100.0, 100.0, 100.0), Noise(0.05), True, 240.0))
    return found


def _row(case: Case, found: Sequence[Simulated]) -> list[str]:
    def share(values: Sequence[bool]) -> str:
        return format_percent(sum(values) / len(values), 1)

    errors = np.array([s.winner_error for s in found])
    noise = format_percent(case.noise.sd)
    if case.noise.wander_s is not None:
        noise += f", {case.noise.wander_s:.0f} s"
    return [
        case.name + (", with a history" if case.has_history else ""),
        noise,
        share([s.differs for s in found]),
        share([s.winner_share == 1 for s in found]),
        f"{errors.mean():+.1%}, {format_percent(errors.std(), 1)}",
        f"{np.mean([s.ratio_error for s in found]):+.1%}",
        share([s.ratio_covers for s in found]),
        f"±{format_percent(np.median([s.ratio_half_width for s in found]), 1)}",
        share([s.prediction_covers for s in found]),
        f"{np.mean([s.rounds for s in found]):.0f}, {np.mean([s.visits for s in found]):.0f}",
        f"{np.mean([s.seconds for s in found]) / 60:.1f}",
        share([s.is_paired for s in found]),
    ]


def main(
    runs: Annotated[int, typer.Option(min=10, help="Confirmations of each case.")] = 400,
    case: Annotated[str, typer.Option(help="Only the cases whose name contains this.")] = "",
) -> None:
    """Print a row for each case."""
    header = (
        *("case", "noise", "called different", "best chosen", "winner: bias, sd", "ratio: bias"),
        *("ratio covered", "half width", "prediction covers", "rounds, visits", "min", "paired"),
    )
    table = Table(*header, title=f"{runs} confirmations a row")
    chosen = [c for c in cases() if case in c.name]
    if not chosen:
        known = ", ".join(dict.fromkeys(c.name for c in cases()))
        raise typer.BadParameter(f"no case contains {case!r}; the cases are {known}")
    with ProcessPoolExecutor() as pool:
        for one, found in zip(
            chosen, pool.map(partial(simulate_all, runs=runs), chosen), strict=True
        ):
            table.add_row(*_row(one, found))
    Console(width=200).print(table)


if __name__ == "__main__":
    typer.run(main)
