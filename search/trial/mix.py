"""The models of a mix in a trial: the latency and the failures of each. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from loadgen.measurement import Measurement


@dataclass(frozen=True)
class MixRecord:
    """A model of a mix in the window at the sustained rate, otherwise in the last window.

    Attributes:
        model: its name.
        rate_rps: its requests ÷ the duration of the window.
        sent, failed: number of its requests, and of those without a correct answer in time.
        p50_s, p95_s, p99_s: latency from the due time.
        errors: number of failed requests by cause.
    """

    model: str
    rate_rps: float
    sent: int = 0
    failed: int = 0
    p50_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None
    errors: Mapping[str, int] = field(default_factory=dict)


def mix_records(window: Measurement | None) -> tuple[MixRecord, ...]:
    """Return a record for each model of a window's mix, by name."""
    if window is None:
        return ()
    return tuple(
        MixRecord(
            model,
            group.ended / window.span_s if window.span_s else 0.0,
            group.ended,
            group.failed,
            group.latency.quantile(0.5),
            group.latency.quantile(0.95),
            group.latency.quantile(0.99),
            dict(group.errors),
        )
        for model, group in sorted(window.groups.items())
    )
