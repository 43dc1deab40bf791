"""Hundreds of simulated rate searches: servers whose speed wanders, slow batches, rare failures.

The truth is the capacity averaged over the seconds in which the server was measured.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from statistics import mean, pstdev

import numpy as np
from rich.table import Table
from scipy import stats

from benchmarks.law import Law
from benchmarks.simulated import Floats, SimulatedStub
from benchmarks.wander import Wander
from loadgen.backlog import overload
from loadgen.formatting import format_percent
from loadgen.measurement import Load, Measurement
from loadgen.rate.goal import Depth, Goal
from loadgen.rate.search import RateSearch

_LAW = Law(workers=2, batch=32, delay_s=0.02, service_s=0.5, queue=1000)
#: Of a server with slow batches, whose requests wait for two rounds.
_SLOW_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Server:
    """A simulated server and how it is measured.

    Attributes:
        sd, time_constant_s: of its speed; see `Wander`. 0 for a steady speed.
        fail_rate: probability that a request fails.
    """

    name: str
    law: Law = _LAW
    sd: float = 0.0
    time_constant_s: float = 15.0
    arrivals: str = "constant"
    depth: Depth = Depth.FULL
    fail_rate: float = 0.0

    def wander(self, seed: int) -> Wander | None:
        """Return the speed of this run's server; None if it is steady."""
        return Wander(self.sd, self.time_constant_s, seed) if self.sd else None


WANDERING = (
    Server("steady"),
    *(
        Server(f"{format_percent(sd)}, {constant_s:g} s", sd=sd, time_constant_s=constant_s)
        for sd in (0.04, 0.08, 0.15)
        for constant_s in (3.0, 15.0, 60.0)
    ),
    Server("8 %, 15 s, screened", sd=0.08, depth=Depth.SCREEN),
)
SLOW = tuple(
    Server(
        f"{batch_s:g} s a batch{f', {format_percent(sd)}' if sd else ''}",
        replace(_LAW, service_s=batch_s),
        sd=sd,
    )
    for batch_s in (1.0, 2.0, 4.0, 8.0)
    for sd in (0.0, 0.04)
)
POISSON = (
    Server("2 × 32", arrivals="poisson"),
    Server("2 × 32, 8 %, 15 s", sd=0.08, arrivals="poisson"),
    Server("1 × 1", Law(service_s=0.01, queue=10_000), arrivals="poisson"),
    Server("1 × 1, exponential", Law(service_s=0.01, exponential=True, queue=10_000)),
)
#: From windows of a few requests to windows that nearly always hold a failure.
FAILING = tuple(
    Server(f"{law.capacity_rps:g} rps", law, fail_rate=1 / 500)
    for law in (
        Law(service_s=0.1, queue=1000),
        Law(workers=2, batch=8, service_s=0.4, queue=1000),
        _LAW,
        Law(workers=2, batch=32, service_s=0.1, queue=1000),
    )
)


class FailingStub(SimulatedStub):
    """A stub at which requests fail independently of their rate."""

    def __init__(self, server: Server, seed: int):
        super().__init__(server.law, seed, server.wander(seed))
        self._fail_rate = server.fail_rate
        self._generator = np.random.default_rng(seed)
        self._fails = np.zeros(0, dtype=np.bool_)

    def times(self, load: Load) -> tuple[Floats, Floats]:
        """See `SimulatedGenerator.times`."""
        due, done = super().times(load)
        self._fails = self._generator.random(len(due)) < self._fail_rate
        return due, done

    def window(
        self, load: Load, due: Floats, done: Floats, span: float, drained: bool = False
    ) -> Measurement:
        """See `SimulatedGenerator.window`."""
        window = super().window(load, due, done, span, drained)
        ended = (due < span) & (drained | (done < span)) & ~np.isnan(done)
        failed = int((self._fails & ended).sum())
        if not failed:
            return window
        errors = {**window.errors, "status 500": failed}
        return replace(window, succeeded=max(window.succeeded - failed, 0), errors=errors)


@dataclass(frozen=True)
class Run:
    """The result of one simulated search.

    Attributes:
        verified, estimate: rate ÷ true capacity; None without one.
        measured_s: seconds of all windows with their drains.
        failed: failed requests in the windows at the rate that was found.
        bound: lower bound of the success probability; None without a rate.
    """

    verified: float | None
    estimate: float | None
    measured_s: float
    failed: int
    bound: float | None


def run(server: Server, seed: int) -> Run:
    """Search for the rate of a server once."""
    law = server.law
    stub = FailingStub(server, seed)
    cycle = law.workers * law.batch
    slow = law.mean_s(law.batch) > 2
    goal = Goal(
        arrivals=server.arrivals,
        seed=1000 * seed,
        timeout_s=_SLOW_TIMEOUT_S if slow else Goal.timeout_s,
    )
    users = max(2, min(2 * cycle, cycle + law.queue))
    found = asyncio.run(RateSearch(goal, stub, cycle, users, depth=server.depth).find())
    true_rps = stub.true_rps
    counted = [p.measurement for p in found.probes if p.rate_rps == found.lower_rps]
    return Run(
        verified=found.lower_rps / true_rps if found.lower_rps else None,
        estimate=found.estimate.rps / true_rps if found.estimate else None,
        measured_s=stub.measured_s,
        failed=sum(window.scheduled - window.succeeded for window in counted),
        bound=found.success_bound() if found.lower_rps else None,
    )


def visits(seed: int, ratio: float, rounds: int = 10) -> list[float]:
    """Return the ratios of two configurations' estimates, one for each round of short visits.

    Args:
        ratio: true ratio of the second configuration's capacity to the first one's.
    """
    wander = Wander(0.05, 15.0, seed, horizon_s=40.0 * rounds)
    laws = (_LAW, replace(_LAW, service_s=_LAW.service_s / ratio))
    ratios = []
    for number in range(rounds):
        rates: list[tuple[int, float]] = []
        for index in (0, 1) if number % 2 == 0 else (1, 0):
            begin_s = 20.0 * (2 * number + len(rates))
            stub = SimulatedStub(laws[index], 1000 * seed + 2 * number + index, wander, begin_s)
            search = RateSearch(Goal(), stub, 64, 128, depth=Depth.ESTIMATE)
            found = asyncio.run(search.find())
            assert found.estimate is not None
            rates.append((index, found.estimate.rps))
        rates.sort()
        ratios.append(rates[1][1] / rates[0][1])
    return ratios


def _visits_of_equals(seed: int) -> list[float]:
    return visits(seed, 1.0)


def _visits_of_unequals(seed: int) -> list[float]:
    return visits(seed, 1.05)


# --- the test of the backlog ---------------------------------------------------------

#: Standard deviation of the noise, in rounds of requests.
_NOISE = 0.1
_BINS_PER_CYCLE = 10
_OVERLOAD = 0.025
NOISE_MODELS = ("white", "AR 0.3", "AR 0.6", "AR 0.9", "random walk")
CYCLES = (8, 12, 20, 53, 107)


def _noise(model: str, cycles: int, generator: np.random.Generator) -> Floats:
    """Return the noise of the backlog in each bin, in rounds of requests."""
    if model == "random walk":
        steps = generator.normal(0, _NOISE / math.sqrt(_BINS_PER_CYCLE), cycles * _BINS_PER_CYCLE)
        return np.cumsum(steps)
    correlation = float(model.split()[1]) if model.startswith("AR") else 0.0
    value, values = generator.normal() / math.sqrt(1 - correlation**2), []
    for shock in generator.normal(size=cycles):
        value = correlation * value + shock
        values.append(value)
    return np.repeat(_NOISE * np.array(values), _BINS_PER_CYCLE)


def excluded_share(model: str, cycles: int, windows: int = 1000) -> float:
    """Return the share of windows that exclude an overload of 2.5 %, although it is true.

    Args:
        cycles: rounds of batches in a window.
    """
    generator = np.random.default_rng(cycles)
    time = np.arange(cycles * _BINS_PER_CYCLE) / _BINS_PER_CYCLE
    excluded = 0
    for _ in range(windows):
        backlog = 5 + _OVERLOAD * time + _noise(model, cycles, generator)
        found = overload(backlog, 1 / _BINS_PER_CYCLE, 1.0, 1.0)
        excluded += found.high < _OVERLOAD
    return excluded / windows


# --- tables --------------------------------------------------------------------------


def tables(runs: int) -> Iterable[Table]:
    """Yield the tables of the benchmark, each as soon as it is complete.

    Args:
        runs: searches of each server; twice as many of the servers that fail and of the pairs.
    """
    with ProcessPoolExecutor() as pool:

        def search(server: Server, count: int = runs) -> list[Run]:
            return list(pool.map(run, [server] * count, range(count), chunksize=5))

        yield _error_table("Servers whose speed wanders", WANDERING, search)
        yield _error_table("Slow batches", SLOW, search)
        yield _error_table("Poisson arrivals or exponential service", POISSON, search)
        yield _failing_table([(server, search(server, 2 * runs)) for server in FAILING])
        equal = list(pool.map(_visits_of_equals, range(2 * runs), chunksize=5))
        unequal = list(pool.map(_visits_of_unequals, range(2 * runs), chunksize=5))
        yield _visit_table({"the same (A/A)": equal, "truly 5 % faster": unequal})
        yield _backlog_table(pool)


def _error_table(
    title: str, servers: Sequence[Server], search: Callable[[Server], list[Run]]
) -> Table:
    table = Table("server", title=title, title_justify="left")
    for name in (
        "runs",
        "verified, mean %",
        "sd %",
        "least %",
        "no rate",
        "estimate, mean %",
        "sd %",
        "measured s, mean",
        "most",
    ):
        table.add_column(name, justify="right")
    for server in servers:
        found = search(server)
        verified = [100 * (r.verified - 1) for r in found if r.verified is not None]
        estimates = [100 * (r.estimate - 1) for r in found if r.estimate is not None]
        seconds = [r.measured_s for r in found]
        table.add_row(
            server.name,
            str(len(found)),
            *_spread(verified),
            f"{min(verified, default=0.0):+.1f}",
            str(len(found) - len(verified)),
            *_spread(estimates),
            f"{mean(seconds):.0f}",
            f"{max(seconds):.0f}",
        )
    return table


def _spread(values: Sequence[float]) -> tuple[str, str]:
    return (f"{mean(values):+.1f}", f"{pstdev(values):.1f}") if values else ("", "")


def _failing_table(rows: Sequence[tuple[Server, list[Run]]]) -> Table:
    table = Table("server", title="One request in 500 fails", title_justify="left")
    for name in ("runs", "with a rate", "with a failure at it", "bound holds"):
        table.add_column(name, justify="right")
    for server, found in rows:
        rated = [r for r in found if r.bound is not None]
        holds = sum(r.bound is None or r.bound <= 1 - server.fail_rate for r in found)
        table.add_row(
            server.name,
            str(len(found)),
            str(len(rated)),
            str(sum(r.failed > 0 for r in rated)),
            format_percent(holds / len(found), 1),
        )
    return table


def _visit_table(rows: dict[str, list[list[float]]]) -> Table:
    title = "Ten rounds of short visits to two configurations, speed wandering by 5 %"
    table = Table("second configuration", title=title, title_justify="left")
    for name in ("runs", "mean ratio", "sd of one ratio %", "called different"):
        table.add_column(name, justify="right")
    for name, found in rows.items():
        tests = [stats.ttest_1samp(np.log(ratios), 0.0).pvalue for ratios in found]
        all_ratios = [ratio for ratios in found for ratio in ratios]
        table.add_row(
            name,
            str(len(found)),
            f"{mean(all_ratios):.3f}",
            f"{100 * pstdev(all_ratios):.1f}",
            str(sum(p < 0.05 for p in tests)),
        )
    return table


def _backlog_table(pool: ProcessPoolExecutor) -> Table:
    title = "Windows that exclude a true overload of 2.5 %, by noise of the backlog (nominal: 5 %)"
    table = Table("rounds of batches", title=title, title_justify="left")
    for model in NOISE_MODELS:
        table.add_column(model, justify="right")
    for cycles in CYCLES:
        shares = pool.map(excluded_share, NOISE_MODELS, [cycles] * len(NOISE_MODELS))
        table.add_row(str(cycles), *(format_percent(share, 1) for share in shares))
    return table
