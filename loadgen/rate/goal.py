"""What a rate search looks for, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """The goal of a rate search and its limits.

    Attributes:
        width: relative distance of the two bounds at which the search ends.
        arrivals: "constant" or "poisson".
        timeout_s: a request must be answered within this time of its due time, seconds.
        window_s: least duration of a window, seconds.
        window_limit_s: greatest duration of a window; twice that if it looks sustained by then.
        warmup_limit_s: greatest duration of the closed loop, seconds.
        search_limit_s: time for bracketing, seconds. After it no higher rate is tried; the least
            time of the last two windows is kept to show that the known rate holds, or to find a
            lower one that does. A slow server gets time for five of its windows, at most twice
            this limit.
        windows: windows that must agree on a bound; the odd one out is outvoted. One is enough
            if a window takes more than twice `window_s`.
        max_rate_rps: nothing is offered above this rate.
        p99_s: greatest 99th percentile of latency, seconds; None for no limit.
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
