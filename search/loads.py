"""The loads of a sweep: what is offered, and the figures that come of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from loadgen.measurement import Load, Measurement
from loadgen.schedule import Burst, Closed, Constant, Poisson, Schedule
from serving.metrics import ServerWindow

#: A burst is due at once; so long a window holds it.
_AT_ONCE_S = 0.05


@dataclass(frozen=True)
class Offered:
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


@dataclass(frozen=True)
class LoadResult:
    """What came of one load.

    Attributes:
        load: its name. kind: its kind.
        requested_rps: of an interval, else None.
        scheduled, sent, answered: requests that were due, that went out, that were answered
            rightly and in time.
        success_rate: answered ÷ scheduled.
        completion_s: from the first due time to the last right answer; None without one.
        achieved_rps: answered ÷ completion_s; of a closed loop, in its steady part.
        mean_latency_s, max_minus_mean_s, p50_s, p95_s, p99_s: answer − due; a request that failed
            or was not sent counts as the time-out at least.
        sustained_rps, upper_rps: of the search for the rate, else None; 0 where none was
            sustained.
        queue_s, inference_s, mean_batch_fill: the server's own account, where it told one.
        errors: failed requests by cause.
        doubts: what makes these figures less sure than they look.
    """

    load: str
    kind: str
    requested_rps: float | None = None
    scheduled: int = 0
    sent: int = 0
    answered: int = 0
    success_rate: float | None = None
    completion_s: float | None = None
    achieved_rps: float | None = None
    mean_latency_s: float | None = None
    max_minus_mean_s: float | None = None
    p50_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None
    sustained_rps: float | None = None
    upper_rps: float | None = None
    queue_s: float | None = None
    inference_s: float | None = None
    mean_batch_fill: float | None = None
    errors: Mapping[str, int] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LoadResult:
        """The inverse of `to_dict`."""
        return cls(**{**data, "doubts": tuple(data["doubts"])})


def result_of(offered: Offered, measured: Measurement, server: ServerWindow | None) -> LoadResult:
    """The figures of a window."""
    longest, mean = measured.latency.quantile(1.0), measured.latency.mean()
    completion_s = measured.last_answer_s or None
    achieved = measured.succeeded / completion_s if completion_s else None
    limited = measured.generator_limited
    return LoadResult(
        offered.name,
        offered.kind,
        requested_rps=offered.rate_rps,
        scheduled=measured.scheduled,
        sent=measured.sent,
        answered=measured.succeeded,
        success_rate=measured.success_rate,
        completion_s=completion_s,
        achieved_rps=measured.goodput_rps if offered.kind == "closed" else achieved,
        mean_latency_s=mean,
        max_minus_mean_s=None if longest is None or mean is None else max(longest - mean, 0.0),
        p50_s=measured.latency.quantile(0.5),
        p95_s=measured.latency.quantile(0.95),
        p99_s=measured.latency.quantile(0.99),
        queue_s=server.queue_s if server else None,
        inference_s=server.inference_s if server else None,
        mean_batch_fill=server.mean_batch_fill if server else None,
        errors=dict(measured.errors),
        doubts=(f"the load was not offered as asked: {limited}",) if limited else (),
    )
