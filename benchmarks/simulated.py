"""The search against servers on no clock: many runs of each case in the time of one.

Where chance is at work one run says little. Each window is served by a fresh line, as the stub's.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt

from benchmarks.cases import Case
from benchmarks.law import Law, Line
from benchmarks.truth import sustained_rps
from loadgen.histogram import Histogram
from loadgen.measurement import BIN_S, Load, Measurement, Until
from loadgen.rate.goal import Goal
from loadgen.rate.search import RateSearch
from loadgen.rate.verdict import duration_s
from loadgen.schedule import Closed, due_times

Floats = npt.NDArray[np.float64]

_FIRST_LOOK_S, _LOOK_S = 0.5, 0.25
#: A user who is refused asks again after this time, as the load client does.
_AGAIN_S = 0.01
_AFTER_ALL_S = 1e9
#: Truths are computed for windows as long as these.
_ROUNDED_S = 5.0


class Simulation:
    """A generator whose windows take no time; what its server does is up to `times`."""

    def __init__(self) -> None:
        self.calls: list[Load] = []

    async def add_capacity(self, limited: Measurement) -> str | None:
        """There is nothing to relieve: a simulated client is never late."""
        return None

    async def measure(self, load: Load, until: Until | None = None) -> Measurement:
        """See `Generator.measure`."""
        self.calls.append(load)
        due, done = self.times(load)
        span = _FIRST_LOOK_S if until else load.duration_s
        while until and span < load.duration_s and not until(self.window(load, due, done, span)):
            span += _LOOK_S
        return self.window(load, due, done, min(span, load.duration_s), drained=True)

    def times(self, load: Load) -> tuple[Floats, Floats]:
        """When each request is due, ascending, and answered; NaN where it is refused."""
        raise NotImplementedError

    def window(
        self, load: Load, due: Floats, done: Floats, span: float, drained: bool = False
    ) -> Measurement:
        """What is measured of the window up to span, at once or after its drain."""
        seen = due < span
        due, done = due[seen], done[seen]
        refused = np.isnan(done)
        late = (done - due > load.timeout_s) & (drained | (due + load.timeout_s < span))
        answered = ~refused & ~late & (drained | (done < span))
        latency, lateness = Histogram(), Histogram()
        latency.record_all(done[answered] - due[answered])
        lateness.record(0.0, max(len(due), 1))
        edges = np.arange(0, load.duration_s + 2 * BIN_S, BIN_S)
        good = np.histogram(done[answered], edges)[0]
        ended = np.concatenate([due[refused], due[late] + load.timeout_s])
        errors = {"status 503": int(refused.sum()), "timeout": int(late.sum())}
        return Measurement(
            load=load,
            scheduled=len(due),
            sent=len(due),
            succeeded=int(answered.sum()),
            errors={cause: count for cause, count in errors.items() if count},
            span_s=span,
            latency=latency,
            service=latency,
            lateness=lateness,
            begun=np.histogram(due, edges)[0],
            done=good + np.histogram(ended, edges)[0],
            good=good,
        )


class Served(Simulation):
    """A server of known law."""

    def __init__(self, law: Law, seed: int):
        super().__init__()
        self._law, self._seed = law, seed

    def times(self, load: Load) -> tuple[Floats, Floats]:
        """See `Simulation.times`."""
        line: Line[int] = Line(self._law, seed=1000 * self._seed + len(self.calls))
        if isinstance(load.schedule, Closed):
            return _closed(line, load.schedule.users, load.duration_s)
        due = np.array(list(due_times(load.schedule, load.duration_s)))
        return due, _open(line, due)


def _open(line: Line[int], due: Floats) -> Floats:
    done = np.full(len(due), np.nan)
    for number, at in enumerate([*due.tolist(), _AFTER_ALL_S]):
        for end, numbers in line.advance(at):
            done[numbers] = end
        line.arrive(at, number)
    return done


def _closed(line: Line[int], users: int, duration_s: float) -> tuple[Floats, Floats]:
    asks = [0.0] * users
    due: list[float] = []
    done: list[float] = []
    while (at := min(asks[0] if asks else math.inf, line.next_s)) < math.inf:
        for end, numbers in line.advance(at):
            for number in numbers:
                done[number] = end
                heapq.heappush(asks, end)
        while asks and asks[0] <= at:
            heapq.heappop(asks)
            if at < duration_s:
                due.append(at)
                done.append(math.nan)
                if not line.arrive(at, len(due) - 1):
                    heapq.heappush(asks, at + _AGAIN_S)
    return np.array(due), np.array(done)


@dataclass(frozen=True)
class Run:
    """What one search found: how far it is above the truth, as a share, and what it took."""

    case: str
    error: float
    probe_s: float


def runs(cases: Sequence[Case], seeds: int) -> list[Run]:
    """Run each case repeatedly with the product's defaults, on all cores."""
    with ProcessPoolExecutor() as pool:
        every = [(case, seed) for case in cases for seed in range(seeds)]
        return list(pool.map(_run, *zip(*every, strict=True), chunksize=seeds))


def _run(case: Case, seed: int) -> Run:
    goal = Goal(arrivals=case.arrivals, seed=1000 * seed)
    server = Served(case.law, seed)
    found = asyncio.run(RateSearch(goal, server, case.cycle_requests, case.users).find())
    lasted_s = [p.measurement.span_s for p in found.probes if p.rate_rps == found.lower_rps]
    true_rps = _truth(case, _ROUNDED_S * max(round(max(lasted_s, default=0) / _ROUNDED_S), 1))
    probe_s = sum(duration_s(probe.measurement) for probe in found.probes)
    return Run(case.name, (found.lower_rps or 0.0) / true_rps - 1, probe_s)


@cache
def _truth(case: Case, window_s: float) -> float:
    return sustained_rps(case.law, replace(case.window, least_s=window_s))
