"""A generator whose server is simulated: windows take no time and follow a known law."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from benchmarks.law import Law
from benchmarks.simulated import Floats, Simulation
from benchmarks.truth import simulate
from loadgen.errors import GeneratorLostError
from loadgen.histogram import Histogram
from loadgen.measurement import Load, Measurement, Until
from loadgen.schedule import Closed, Constant, due_times


class Simulated(Simulation):
    """`servers` that each answer a request `service_s` after they took it; first come first served.

    Args:
        fail_every: every so-many-th request fails.
        late_s: how late each request is sent.
        lose: these measure calls, counted from 0, lose a load generator process.
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
        seen = super().window(load, due, done, span, drained)
        failed = seen.scheduled // self.fail_every if self.fail_every else 0
        lateness = Histogram()
        lateness.record(self.late_s, max(seen.scheduled, 1))
        return replace(
            seen,
            succeeded=seen.succeeded - failed,
            errors={"status 500": failed} if failed else {},
            lateness=lateness,
        )


class SimulatedFleet(Simulated):
    """A simulated generator in place of a `Fleet`: it offers load to no URL."""

    async def set_target(self, url: str) -> None:
        """See `Fleet.set_target`."""

    def close(self) -> None:
        """See `Fleet.close`."""


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

    def times(self, load: Load) -> tuple[Floats, Floats]:
        schedule = load.schedule
        if isinstance(schedule, Closed):
            schedule = Constant(1.1 * self.capacity_rps)
        due = np.array(list(due_times(schedule, load.duration_s)))
        noise = np.exp(self._chance.normal(0, self._varies, len(due)))
        return due, simulate(self._law, due, noise.tolist()).answered
