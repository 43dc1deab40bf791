"""The background of a trial: what other models of the server answered meanwhile. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from loadgen.measurement import Measurement


@dataclass(frozen=True)
class BackgroundRecord:
    """A background model in the window at the sustained rate, otherwise in the last window.

    Attributes:
        model: its name.
        rate_rps: the rate that it was offered.
        scheduled, failed: number of its requests, and of those without a correct answer in time.
        p50_s, p99_s: latency from the due time; None without a request.
        errors: number of failed requests by cause.
    """

    model: str
    rate_rps: float
    scheduled: int = 0
    failed: int = 0
    p50_s: float | None = None
    p99_s: float | None = None
    errors: Mapping[str, int] = field(default_factory=dict)


def background_records(window: Measurement | None) -> tuple[BackgroundRecord, ...]:
    """Return a record for each background model of a window."""
    return tuple(
        BackgroundRecord(
            model,
            measured.load.rate_rps or 0.0,
            measured.scheduled,
            measured.scheduled - measured.succeeded,
            measured.latency.quantile(0.5),
            measured.latency.quantile(0.99),
            dict(measured.errors),
        )
        for model, measured in (window.background if window else {}).items()
    )
