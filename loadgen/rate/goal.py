"""What a rate search looks for, and how long it may take."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace


class Depth(enum.StrEnum):
    """How thoroughly a configuration is measured; each depth includes the one before.

    ESTIMATE: the closed loop only: an estimate of the capacity, and no sustained rate.
    SCREEN: one short verified window. Enough to rank configurations.
    FULL: verified windows of full length, and one of Poisson arrivals.
    """

    ESTIMATE = "estimate"
    SCREEN = "screen"
    FULL = "full"


#: Latencies are recorded up to an hour, seconds.
MAX_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Goal:
    """The goal of a rate search and its limits.

    Attributes:
        width: half of it is the growth of the backlog ÷ the offered rate from which a window
            fails. Bracketing ends at this relative distance of its bounds.
        arrivals: "constant" or "poisson".
        timeout_s: a request must be answered within this time of its due time, seconds.
        window_s: least duration of a window of full length, seconds.
        window_limit_s: greatest duration of a window, seconds. If twelve rounds of batches take
            longer, it lasts those.
        warmup_limit_s: greatest duration of the closed loop, seconds. A slow server gets up to
            four times as long for six rounds of batches.
        search_limit_s: time for bracketing, seconds; a slow server gets five windows.
        max_rate_rps: nothing is offered above this rate.
        p99_s, p95_s: greatest 99th and 95th percentile of latency, seconds; None for no limit.
            They hold at `for_rps` if it is given, else at the sustained rate, which is lowered
            until they do.
        for_rps: a rate that must be served, requests/s; None if the highest rate is looked for.
            A window of Poisson arrivals at this rate shows the latency.
        seed: of Poisson arrivals.
    """

    width: float = 0.05
    arrivals: str = "constant"
    timeout_s: float = 10.0
    window_s: float = 10.0
    window_limit_s: float = 20.0
    warmup_limit_s: float = 15.0
    search_limit_s: float = 55.0
    max_rate_rps: float = 100_000.0
    p99_s: float | None = None
    p95_s: float | None = None
    for_rps: float | None = None
    seed: int = 0

    @property
    def latency_limits(self) -> tuple[tuple[str, float, float], ...]:
        """The limits of the latency: name, quantile, seconds."""
        limits = (("p95", 0.95, self.p95_s), ("p99", 0.99, self.p99_s))
        return tuple((name, q, seconds) for name, q, seconds in limits if seconds is not None)

    @property
    def lowers_rate(self) -> bool:
        """Whether the sustained rate is lowered until the limits of the latency are met."""
        return self.for_rps is None and bool(self.latency_limits)

    def without_limits(self) -> Goal:
        """Return the goal without limits of the latency."""
        return replace(self, p99_s=None, p95_s=None)

    def __post_init__(self) -> None:
        if not (0 < self.width < 0.5 and 0 < self.window_s <= self.window_limit_s):
            raise ValueError(f"impossible goal: {self}")
