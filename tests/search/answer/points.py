"""Operating points for tests, made from a few figures."""

from __future__ import annotations

from typing import Any

from search.answer.operating_points import LatencyPoint, OperatingPoint
from serving.config import ServerConfig


def point(
    number: int, rate_rps: float, p99_s: float | None = None, **figures: Any
) -> OperatingPoint:
    """Return a point of a configuration that differs by its number."""
    config = ServerConfig(workers=1, batch_size=number + 1)
    return OperatingPoint(number, config, rate_rps, p99_s=p99_s, **figures)


def latencies(rate_rps: float, p99_by_share: dict[float, float]) -> tuple[LatencyPoint, ...]:
    """Return latencies by share; p50 is half of p99, p90 three quarters."""
    return tuple(
        LatencyPoint(share, share * rate_rps, p99_s / 2, 0.75 * p99_s, p99_s)
        for share, p99_s in p99_by_share.items()
    )
