"""What a rate search looks for, and how long it may take."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Depth(enum.StrEnum):
    """How thoroughly a configuration is measured; each depth includes the one before.

    ESTIMATE: the closed loop only: an estimate of the capacity, and no sustained rate.
    SCREEN: one short verified window. Enough to rank configurations.
    FULL: verified windows of full length, and one of Poisson arrivals.
    """

    ESTIMATE = "estimate"
    SCREEN = "screen"
    FULL = "full"


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
        p99_s: greatest 99th percentile of latency, seconds; None for no limit.
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
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.width < 0.5 and 0 < self.window_s <= self.window_limit_s):
            raise ValueError(f"impossible goal: {self}")
