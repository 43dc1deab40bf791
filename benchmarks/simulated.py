"""Rate searches against simulated servers, which take no time: many searches of each case.

A single search of a random case shows little. Each window is served by a new `BatchServer`.
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
from benchmarks.law import BatchServer, Law
from benchmarks.truth import sustained_rps
from benchmarks.wander import Wander
from loadgen.histogram import Histogram
from loadgen.measurement import BIN_S, Load, Measurement, Until
from loadgen.rate.goal import Goal
from loadgen.rate.search import RateSearch
from loadgen.rate.verdict import duration_s
from loadgen.schedule import Closed, due_times

Floats = npt.NDArray[np.float64]

_FIRST_CHECK_S, _CHECK_S = 0.5, 0.25
#: A refused user sends again after this time, as the load generator does.
_RETRY_S = 0.01
_AFTER_ALL_S = 1e9
#: Time from the end of a window to the next one.
_BETWEEN_S = 0.2
#: True rates are computed for windows of multiples of this duration.
_ROUNDED_S = 5.0


class SimulatedGenerator:
    """A load generator whose windows take no time; subclasses define the server by `times`."""

    def __init__(self) -> None:
        self.calls: list[Load] = []

    async def add_capacity(self, limited: Measurement) -> str | None:
        """Return None: a simulated generator is never late."""
        return None

    async def measure(self, load: Load, until: Until | None = None) -> Measurement:
        """See `LoadGenerator.measure`."""
        self.calls.append(load)
        due, done = self.times(load)
        span = _FIRST_CHECK_S if until else load.duration_s
        while until and span < load.duration_s and not until(self.window(load, due, done, span)):
            span += _CHECK_S
        return self.window(load, due, done, min(span, load.duration_s), drained=True)

    def times(self, load: Load) -> tuple[Floats, Floats]:
        """Return when each request is due, ascending, and when answered; NaN if refused."""
        raise NotImplementedError

    def window(
        self, load: Load, due: Floats, done: Floats, span: float, drained: bool = False
    ) -> Measurement:
        """Return the measurement of the window up to `span`, before or after its drain."""
        in_span = due < span
        due, done = due[in_span], done[in_span]
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


class SimulatedStub(SimulatedGenerator):
    """A server of known law, without faults.

    Args:
        wander: how its speed wanders while windows follow one another; 1 if None.
        begin_s: when its first window begins, on the clock of the wandering.

    Attributes:
        spans: begin and end of each window with its drain, on that clock.
    """

    def __init__(self, law: Law, seed: int, wander: Wander | None = None, begin_s: float = 0.0):
        super().__init__()
        self._law, self._seed, self._wander = law, seed, wander
        self._now_s = begin_s
        self.spans: list[tuple[float, float]] = []

    @property
    def true_rps(self) -> float:
        """The capacity, averaged over the seconds in which the server was measured."""
        if self._wander is None:
            return self._law.capacity_rps
        work_s = sum(self._wander.work_s(begin, end) for begin, end in self.spans)
        return self._law.capacity_rps * work_s / self.measured_s

    @property
    def measured_s(self) -> float:
        """Seconds of all windows with their drains."""
        return sum(end - begin for begin, end in self.spans)

    async def measure(self, load: Load, until: Until | None = None) -> Measurement:
        """See `LoadGenerator.measure`."""
        window = await super().measure(load, until)
        end_s = self._now_s + duration_s(window)
        self.spans.append((self._now_s, end_s))
        self._now_s = end_s + _BETWEEN_S
        return window

    def times(self, load: Load) -> tuple[Floats, Floats]:
        """See `SimulatedGenerator.times`."""
        seed = 1000 * self._seed + len(self.calls)
        server: BatchServer[int] = BatchServer(
            self._law, seed=seed, speed=self._wander, zero_s=-self._now_s
        )
        if isinstance(load.schedule, Closed):
            return _closed(server, load.schedule.users, load.duration_s)
        due = np.array(list(due_times(load.schedule, load.duration_s)))
        return due, _open(server, due)


def _open(server: BatchServer[int], due: Floats) -> Floats:
    done = np.full(len(due), np.nan)
    for number, at in enumerate([*due.tolist(), _AFTER_ALL_S]):
        for end, numbers in server.advance(at):
            done[numbers] = end
        server.arrive(at, number)
    return done


def _closed(server: BatchServer[int], users: int, duration_s: float) -> tuple[Floats, Floats]:
    sends = [0.0] * users
    due: list[float] = []
    done: list[float] = []
    while (at := min(sends[0] if sends else math.inf, server.next_s)) < math.inf:
        for end, numbers in server.advance(at):
            for number in numbers:
                done[number] = end
                heapq.heappush(sends, end)
        while sends and sends[0] <= at:
            heapq.heappop(sends)
            if at < duration_s:
                due.append(at)
                done.append(math.nan)
                if not server.arrive(at, len(due) - 1):
                    heapq.heappush(sends, at + _RETRY_S)
    return np.array(due), np.array(done)


@dataclass(frozen=True)
class SearchResult:
    """The result of one search.

    Attributes:
        error: rate found ÷ true rate − 1.
        probe_s: seconds of windows at offered rates.
    """

    case: str
    error: float
    probe_s: float


def search_all(cases: Sequence[Case], seeds: int) -> list[SearchResult]:
    """Search each case with `seeds` seeds and the product's defaults, on all cores."""
    with ProcessPoolExecutor() as pool:
        pairs = [(case, seed) for case in cases for seed in range(seeds)]
        return list(pool.map(_search, *zip(*pairs, strict=True), chunksize=seeds))


def _search(case: Case, seed: int) -> SearchResult:
    goal = Goal(arrivals=case.arrivals, seed=1000 * seed)
    server = SimulatedStub(case.law, seed)
    found = asyncio.run(RateSearch(goal, server, case.cycle_requests, case.users).find())
    lasted_s = [p.measurement.span_s for p in found.probes if p.rate_rps == found.lower_rps]
    true_rps = _true_rps(case, _ROUNDED_S * max(round(max(lasted_s, default=0) / _ROUNDED_S), 1))
    probe_s = sum(duration_s(probe.measurement) for probe in found.probes)
    return SearchResult(case.name, (found.lower_rps or 0.0) / true_rps - 1, probe_s)


@cache
def _true_rps(case: Case, window_s: float) -> float:
    return sustained_rps(case.law, replace(case.window, least_s=window_s))
