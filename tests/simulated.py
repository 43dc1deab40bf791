"""Load generators with simulated servers: windows take no time and follow a known law."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from benchmarks.law import Law
from benchmarks.simulated import Floats, SimulatedGenerator
from benchmarks.truth import simulate
from loadgen.errors import GeneratorLostError
from loadgen.histogram import Histogram
from loadgen.measurement import Load, Measurement, Until
from loadgen.schedule import Closed, Constant, due_times
from loadgen.tls import Tls


class SimulatedServers(SimulatedGenerator):
    """Servers that each serve one request at a time, in the order of arrival.

    Args:
        service_s: service time of a request, seconds.
        servers: the number of servers.
        fail_every: one failed request per this number; 0 for none.
        late_s: how late each request is sent, seconds.
        lose: numbers of the measure calls, from 0, that lose a load generator process.
    """

    def __init__(
        self,
        service_s: float,
        servers: int = 1,
        fail_every: int = 0,
        late_s: float = 0.0,
        lose: Iterable[int] = (),
    ):
        super().__init__()
        self.service_s, self.servers = service_s, servers
        self.fail_every, self.late_s, self.lose = fail_every, late_s, set(lose)
        self.raised = False

    @property
    def capacity_rps(self) -> float:
        return self.servers / self.service_s

    async def add_capacity(self, limited: Measurement) -> str | None:
        if self.raised:
            return None
        self.raised = True
        return "load generator processes of a higher priority"

    async def measure(self, load: Load, until: Until | None = None) -> Measurement:
        if len(self.calls) in self.lose:
            self.calls.append(load)
            raise GeneratorLostError("it was lost")
        return await super().measure(load, until)

    def times(self, load: Load) -> tuple[Floats, Floats]:
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

    def window(
        self, load: Load, due: Floats, done: Floats, span: float, drained: bool = False
    ) -> Measurement:
        window = super().window(load, due, done, span, drained)
        failed = window.succeeded // self.fail_every if self.fail_every else 0
        lateness = Histogram()
        lateness.record(self.late_s, max(window.scheduled, 1))
        return replace(
            window,
            succeeded=window.succeeded - failed,
            errors={"status 500": failed} if failed else {},
            lateness=lateness,
        )


class SimulatedFleet(SimulatedServers):
    """A simulated generator with the interface of a `Fleet`; it ignores the URL."""

    async def set_target(self, url: str, tls: Tls | None = None) -> None:
        """See `Fleet.set_target`."""

    def close(self) -> None:
        """See `Fleet.close`."""


class SimulatedBatches(SimulatedServers):
    """Workers that form batches of random duration, with an unbounded queue.

    A closed loop is simulated as constant arrivals at 1.1 times the capacity.

    Args:
        variation: standard deviation of the logarithm of a batch's duration ÷ its mean.
        seed: of the random durations.
    """

    def __init__(self, law: Law, variation: float, seed: int):
        places = law.workers * law.batch
        super().__init__(places / law.capacity_rps, places)
        self._law, self._variation = law, variation
        self._generator = np.random.default_rng(seed)

    def times(self, load: Load) -> tuple[Floats, Floats]:
        schedule = load.schedule
        if isinstance(schedule, Closed):
            schedule = Constant(1.1 * self.capacity_rps)
        due = np.array(list(due_times(schedule, load.duration_s)))
        noise = np.exp(self._generator.normal(0, self._variation, len(due)))
        return due, simulate(self._law, due, noise.tolist()).answered
