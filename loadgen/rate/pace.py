"""How long each window of a rate search lasts, and how long the search will take. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from loadgen.rate.goal import Depth, Goal
from loadgen.rate.thresholds import DEFAULT_THRESHOLDS, Thresholds

#: A window's drain, as rounds of batches.
_DRAIN_CYCLES = 2


@dataclass(frozen=True)
class Pace:
    """The durations of windows, which follow from the time of one round of batches.

    Attributes:
        cycle_requests: requests that the server takes in one round.
    """

    goal: Goal
    cycle_requests: int
    depth: Depth = Depth.FULL
    thresholds: Thresholds = DEFAULT_THRESHOLDS

    def window_s(self, rate_rps: float, least_requests: float = 0.0) -> float:
        """Return the duration of a window that verifies a rate, seconds.

        Args:
            least_requests: fewer cannot show that none fails. They are offered only if the
                window stays as short as that of a slow server.
        """
        limits, goal = self.thresholds, self.goal
        cycle_s = self.cycle_requests / rate_rps
        if self.depth is Depth.SCREEN:
            least_s = max(min(limits.screen_s, goal.window_s), limits.screen_cycles * cycle_s)
            limit_s = least_s
        else:
            least_s = max(goal.window_s, limits.cycles * cycle_s)
            limit_s = max(goal.window_limit_s, limits.slow_cycles * cycle_s)
        seconds = max(min(least_s, limit_s), limits.completions / rate_rps)
        needed_s = least_requests / rate_rps
        return max(seconds, needed_s) if needed_s <= 2 * goal.window_limit_s else seconds

    def jitter_s(self, rate_rps: float) -> float:
        """Return the duration of a window of Poisson arrivals, seconds."""
        limits = self.thresholds
        return max(
            min(limits.jitter_s, self.goal.window_s),
            limits.jitter_cycles * self.cycle_requests / rate_rps,
            limits.completions / rate_rps,
        )

    def judged_s(self, rate_rps: float) -> float:
        """Return the duration of a window that is judged by its latency, seconds."""
        limits, goal = self.thresholds, self.goal
        enough_s = min(limits.latency_requests / rate_rps, 2 * goal.window_limit_s)
        return max(goal.window_s, enough_s, self.jitter_s(rate_rps))

    def latency_s(self, rate_rps: float, sustained_rps: float) -> float:
        """Return the duration of a window that samples latency at a rate, seconds.

        Batches fill less below the sustained rate, so that its rounds are the longest.
        """
        limits = self.thresholds
        return max(
            min(limits.jitter_s, self.goal.window_s),
            limits.latency_cycles * self.cycle_requests / sustained_rps,
            limits.completions / rate_rps,
        )

    def expected_s(
        self, rate_rps: float, jitter: bool = False, judged: int = 0, sampled: int = 0
    ) -> float:
        """Return how long the windows of a search take if the first rate passes, seconds.

        Args:
            jitter: whether Poisson arrivals are offered too.
            judged: number of windows that are judged by their latency.
            sampled: number of windows that sample latency.
        """
        drain_s = _DRAIN_CYCLES * self.cycle_requests / rate_rps
        return (
            self.window_s(rate_rps)
            + jitter * self.jitter_s(rate_rps)
            + judged * self.judged_s(rate_rps)
            + sampled * self.latency_s(rate_rps, rate_rps)
            + (1 + jitter + judged + sampled) * drain_s
        )
