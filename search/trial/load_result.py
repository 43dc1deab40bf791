"""The result of one load of a sweep. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from loadgen.measurement import Measurement
from search.spec.sweep_loads import SweepLoad
from serving.metrics import ServerWindow


@dataclass(frozen=True)
class LoadResult:
    """The result of one load of a sweep.

    Attributes:
        load, kind: name and kind of the load.
        requested_rps: offered rate of an interval, else None.
        scheduled, sent, answered: requests that were due, sent, and answered correctly in time.
        success_rate: answered ÷ scheduled.
        completion_s: time from the first due time to the last correct answer; None without one.
        achieved_rps: answered ÷ completion_s; in a closed loop, the rate of its steady part.
        mean_latency_s, max_minus_mean_s, p50_s, p95_s, p99_s: latency from the due time; a request
            that failed or was not sent counts as at least the timeout.
        sustained_rps, upper_rps: of a rate search, else None; 0 if no rate was sustained.
        queue_s, inference_s, mean_batch_fill: see `ServerWindow`; None without server metrics.
        errors: number of failed requests by cause.
        warnings: reasons why the figures are less certain, one sentence each.
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
    warnings: tuple[str, ...] = ()

    @classmethod
    def from_window(
        cls, load: SweepLoad, measured: Measurement, server: ServerWindow | None
    ) -> LoadResult:
        """Return the result of a load that is one window."""
        longest, mean = measured.latency.quantile(1.0), measured.latency.mean()
        completion_s = measured.last_answer_s or None
        achieved = measured.succeeded / completion_s if completion_s else None
        limited = measured.generator_limited
        return cls(
            load.name,
            load.kind,
            requested_rps=load.rate_rps,
            scheduled=measured.scheduled,
            sent=measured.sent,
            answered=measured.succeeded,
            success_rate=measured.success_rate,
            completion_s=completion_s,
            achieved_rps=measured.goodput_rps if load.kind == "closed" else achieved,
            mean_latency_s=mean,
            max_minus_mean_s=None if longest is None or mean is None else max(longest - mean, 0.0),
            p50_s=measured.latency.quantile(0.5),
            p95_s=measured.latency.quantile(0.95),
            p99_s=measured.latency.quantile(0.99),
            queue_s=server.queue_s if server else None,
            inference_s=server.inference_s if server else None,
            mean_batch_fill=server.mean_batch_fill if server else None,
            errors=dict(measured.errors),
            warnings=(f"the load was not offered on schedule: {limited}",) if limited else (),
        )
