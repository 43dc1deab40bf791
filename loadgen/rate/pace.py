"""How long each window of a rate search lasts, and how long the search will take. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from loadgen.rate.goal import Depth, Goal
from loadgen.rate.thresholds import DEFAULT_THRESHOLDS, Thresholds

#: A window's drain, as rounds of batches.
_DRAIN_CYCLES = 2
#: Shares of the sustained rate at which each latency curve has a window.
CURVE_SHARES = (0.5, 0.7, 0.9)
#: A rate is far below a curve if it is below this part of its lowest rate.
_FAR_BELOW = 0.8


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
        # A rank is worth no longer window.
        most_s = goal.window_limit_s * (1 if self.depth is Depth.SCREEN else 2)
        enough_s = min(limits.latency_requests / rate_rps, most_s)
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

    def curve_shares(self, sustained_rps: float, from_rps: float | None) -> tuple[float, ...]:
        """Return the shares of the sustained rate at which a latency curve has a window, rising.

        Args:
            from_rps: a rate at which the latency is wanted too, if it is far below the others and
                its window is not longer than others may be.
        """
        if from_rps is None or from_rps >= _FAR_BELOW * CURVE_SHARES[0] * sustained_rps:
            return CURVE_SHARES
        if self.thresholds.completions / from_rps > self.goal.window_limit_s:
            return CURVE_SHARES
        return (from_rps / sustained_rps, *CURVE_SHARES)

    def expected_s(
        self,
        rate_rps: float,
        latency_curve: bool = False,
        comparison_rps: float | None = None,
        curve_from_rps: float | None = None,
    ) -> float:
        """Return how long the windows of a search take if the first rate passes, seconds.

        Args:
            latency_curve: whether latency at `curve_shares` of the rate is measured.
            comparison_rps: rate of one more window that samples latency, requests/s.
            curve_from_rps: the rate at which the curve begins; see `curve_shares`.
        """
        goal, is_full = self.goal, self.depth is Depth.FULL
        jitter = is_full and goal.arrivals != "poisson" and not goal.lowers_rate
        judged_rps = self._judged_rps(rate_rps)
        # The curve's highest rate is that of the jitter window.
        shares = self.curve_shares(rate_rps, curve_from_rps) if latency_curve else ()
        shares = shares[:-1] if jitter else shares
        sampled_rps = [share * rate_rps for share in shares]
        sampled_rps += [comparison_rps] if comparison_rps is not None else []
        return (
            self.window_s(rate_rps)
            + jitter * self.jitter_s(rate_rps)
            + sum(self.judged_s(judged) for judged in judged_rps)
            + sum(self.latency_s(sampled, rate_rps) for sampled in sampled_rps)
            + (1 + jitter + len(judged_rps) + len(sampled_rps)) * self._drain_s(rate_rps)
        )

    def visit_s(self, rate_rps: float) -> float:
        """Return how long the windows after a visit's closed loop take if the first passes."""
        judged_rps = self._judged_rps(rate_rps)
        return sum(self.judged_s(rate) + self._drain_s(rate_rps) for rate in judged_rps)

    def _judged_rps(self, rate_rps: float) -> list[float]:
        """Return the rates of the windows that are judged by their latency, requests/s."""
        rates = [rate_rps] * (1 + (self.depth is Depth.FULL)) if self.goal.lowers_rate else []
        return rates if self.goal.for_rps is None else [*rates, self.goal.for_rps]

    def _drain_s(self, rate_rps: float) -> float:
        return _DRAIN_CYCLES * self.cycle_requests / rate_rps
