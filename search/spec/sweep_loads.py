"""The loads of a sweep. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from loadgen.measurement import Load
from loadgen.schedule import Burst, Closed, Constant, Poisson, Schedule

#: Length of the window of a burst, whose requests are all due at its start.
_BURST_WINDOW_S = 0.05


@dataclass(frozen=True)
class SweepLoad:
    """One load of a sweep.

    Attributes:
        kind: burst (all requests at once), serial (one after another), interval (a rate for a
            duration), closed (users that wait for their answers), or sustained (a rate search).
        requests: number of requests; burst and serial only.
        rate_rps: offered rate; interval only.
        users: number of users; closed only.
        duration_s: length of the load; interval and closed only.
    """

    kind: str
    requests: int | None = None
    rate_rps: float | None = None
    users: int | None = None
    duration_s: float | None = None

    @property
    def name(self) -> str:
        """The name of the load in reports."""
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
        """Return the load for a load generator; not for `sustained`, which is a rate search."""
        schedule: Schedule
        duration_s = self.duration_s or _BURST_WINDOW_S
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
