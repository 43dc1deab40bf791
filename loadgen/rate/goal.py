"""What a rate search looks for, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """What is looked for, and how long.

    Attributes:
        width: the relative distance of the two bounds at which the search ends.
        arrivals: "constant" or "poisson".
        timeout_s: within which a request must be answered, from its due time.
        window_s: a window's least duration.
        window_limit_s: a window's greatest duration; twice that where it looks sustained by then.
        warmup_limit_s: the closed loop's greatest duration.
        search_limit_s: after this much narrowing no higher rates are looked for; that what is
            known holds is shown, or a lower rate that does is looked for; the last two
            windows' least time is kept for that. A slow server is given time for five of its
            windows, up to twice as much.
        windows: how many windows must agree for a bound; the odd one out is outvoted.
            One decides where the server is so slow that a window takes more than twice window_s.
        max_rate_rps: nothing is offered above it.
        p99_s: the greatest 99th percentile of latency, if one is asked for.
        seed: of Poisson arrivals.
    """

    width: float = 0.05
    arrivals: str = "constant"
    timeout_s: float = 10.0
    window_s: float = 5.0
    window_limit_s: float = 20.0
    warmup_limit_s: float = 15.0
    search_limit_s: float = 55.0
    windows: int = 2
    max_rate_rps: float = 100_000.0
    p99_s: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.width < 0.5 and 0 < self.window_s <= self.window_limit_s):
            raise ValueError(f"impossible goal: {self}")
