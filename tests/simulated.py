"""A generator whose server is simulated: windows take no time and follow a known law."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import numpy as np

from benchmarks.law import Law
from benchmarks.truth import simulate
from loadgen.histogram import Histogram
from loadgen.measurement import BIN_S, GeneratorLost, Load, Measurement, Until
from loadgen.schedule import Closed, Constant, due_times


class Simulated:
    """`servers` that each answer a request `service_s` after they took it; first come first served.

    Args:
        fail_every: every so-many-th request fails.
        late_s: how late each request is sent.
        lose: these measure calls, counted from 0, lose a load process.
    """

    def __init__(
        self,
        service_s: float,
        servers: int = 1,
        fail_every: int = 0,
        late_s: float = 0.0,
        lose: Iterable[int] = (),
    ):
        self.service_s, self.servers = service_s, servers
        self.fail_every, self.late_s, self.lose = fail_every, late_s, set(lose)
        self.calls: list[Load] = []
        self.raised = False

    @property
    def capacity_rps(self) -> float:
        return self.servers / self.service_s

    async def relieve(self, limited: Measurement) -> str | None:
        if self.raised:
            return None
        self.raised = True
        return "load processes of a higher priority"

    async def measure(self, load: Load, until: Until | None = None) -> Measurement:
        self.calls.append(load)
        if len(self.calls) - 1 in self.lose:
            raise GeneratorLost("a load process was lost")
        due, done = self._times(load)
        span = 0.5 if until else load.duration_s
        while until and span < load.duration_s and not until(self._window(load, due, done, span)):
            span += 0.25
        return self._window(load, due, done, min(span, load.duration_s))

    def _times(self, load: Load) -> tuple[np.ndarray, np.ndarray]:
        free = [0.0] * self.servers
        due, done = [], []
        if isinstance(load.schedule, Closed):
            users = [0.0] * load.schedule.users
            while (at := heapq.heappop(users)) < load.duration_s:
                end = max(heapq.heappop(free), at) + self.service_s
                heapq.heappush(free, end)
                heapq.heappush(users, end)
                due.append(at)
                done.append(end)
        else:
            for at in due_times(load.schedule, load.duration_s):
                end = max(heapq.heappop(free), at) + self.service_s
                heapq.heappush(free, end)
                due.append(at)
                done.append(end)
        return np.array(due), np.array(done)

    def _window(self, load: Load, due: np.ndarray, done: np.ndarray, span: float) -> Measurement:
        seen = due < span
        due, done = due[seen], done[seen]
        edges = np.arange(0, load.duration_s + 2 * BIN_S, BIN_S)
        answered = np.histogram(done[done < span] if span < load.duration_s else done, edges)[0]
        latency, lateness = Histogram(), Histogram()
        for wait in done - due:
            latency.record(float(wait))
            lateness.record(self.late_s)
        failed = len(due) // self.fail_every if self.fail_every else 0
        return Measurement(
            load=load,
            scheduled=len(due),
            sent=len(due),
            succeeded=len(due) - failed,
            errors={"status 500": failed} if failed else {},
            span_s=span,
            latency=latency,
            service=latency,
            lateness=lateness,
            begun=np.histogram(due, edges)[0],
            done=answered,
            good=answered,
        )


class Batches(Simulated):
    """Workers that form batches, whose times vary by chance; its queue has no bound.

    A closed loop is taken for an open one at a tenth above the capacity.

    Args:
        varies: the standard deviation of a batch's time ÷ its mean.
        seed: of that chance.
    """

    def __init__(self, law: Law, varies: float, seed: int):
        held = law.workers * law.batch
        super().__init__(held / law.capacity_rps, held)
        self._law, self._varies, self._chance = law, varies, np.random.default_rng(seed)

    def _times(self, load: Load) -> tuple[np.ndarray, np.ndarray]:
        schedule = load.schedule
        if isinstance(schedule, Closed):
            schedule = Constant(1.1 * self.capacity_rps)
        due = np.array(list(due_times(schedule, load.duration_s)))
        noise = np.exp(self._chance.normal(0, self._varies, len(due)))
        return due, simulate(self._law, due, noise.tolist()).answered
