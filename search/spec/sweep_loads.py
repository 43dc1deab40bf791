"""The loads of a sweep: what is offered. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from loadgen.measurement import Load
from loadgen.schedule import Burst, Closed, Constant, Poisson, Schedule

#: A burst is due at once; so long a window holds it.
_AT_ONCE_S = 0.05


@dataclass(frozen=True)
class SweepLoad:
    """One load of a sweep.

    Attributes:
        kind: burst (all at once), serial (one after another), interval (a rate for a duration),
            closed (users that wait), or sustained (the search for the rate).
        requests: of a burst or a series.
        rate_rps: of an interval.
        users: of a closed loop.
        duration_s: of an interval or a closed loop.
    """

    kind: str
    requests: int | None = None
    rate_rps: float | None = None
    users: int | None = None
    duration_s: float | None = None

    @property
    def name(self) -> str:
        """What a report calls it."""
        match self.kind:
            case "burst":
                return f"{self.requests} requests at once"
            case "serial":
                return f"{self.requests} requests one after another"
            case "interval":
                return f"{round(self.rate_rps or 0.0, 1):g} rps for {self.duration_s:g} s"
            case "closed":
                return f"{self.users} users for {self.duration_s:g} s"
        return "the sustained rate"

    def load(self, arrivals: str, timeout_s: float, seed: int, cycle_requests: int) -> Load:
        """What a generator is given; not for the sustained rate, which takes a search."""
        schedule: Schedule
        duration_s = self.duration_s or _AT_ONCE_S
        match self.kind:
            case "burst":
                schedule = Burst(self.requests or 1)
            case "serial":
                schedule = Closed(1, self.requests)
                duration_s = timeout_s * (self.requests or 1)
            case "closed":
                schedule = Closed(self.users or 1)
            case _:
                rate = self.rate_rps or 1.0
                schedule = Poisson(rate, seed) if arrivals == "poisson" else Constant(rate)
        return Load(schedule, duration_s, timeout_s, cycle_requests)
