"""Rules for ending an open window early. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from loadgen.measurement import Measurement
from loadgen.rate.estimate import Estimate, answer_times, estimate_of, standard_error_of
from loadgen.rate.goal import Depth, Goal
from loadgen.rate.thresholds import DEFAULT_THRESHOLDS, Thresholds
from loadgen.rate.verdict import Verdict, judge

#: Shares of a window at which it may end early, because it shows an overload.
_CHECKS = (0.5, 0.75)


@dataclass
class EarlyStop:
    """Decides whether a window of an offered rate may end before its time.

    Only a failure ends a window: one that looks good after half of its time may still fail.
    """

    goal: Goal
    duration_s: float
    thresholds: Thresholds = DEFAULT_THRESHOLDS
    _checks: list[float] = field(default_factory=lambda: list(_CHECKS))

    def __call__(self, so_far: Measurement) -> bool:
        """Return whether the window may end."""
        if so_far.errors:
            return True
        if not self._checks or so_far.span_s < self._checks[0] * self.duration_s:
            return False
        self._checks.pop(0)
        verdict, _ = judge(so_far, self.goal, is_open=True, thresholds=self.thresholds)
        return verdict is Verdict.FAIL


@dataclass
class ClosedLoopEnd:
    """Decides whether a closed loop may end.

    Args:
        goal: its limit of the warm-up holds for a server that answered enough by then.
        hopeless_rps: a server that is shown to be slower than this is not measured any longer.
        depth: only at full depth does the loop go on until the estimate is precise, and for longer
            if the server's speed is unsteady.
    """

    goal: Goal
    hopeless_rps: float | None = None
    depth: Depth = Depth.FULL
    thresholds: Thresholds = DEFAULT_THRESHOLDS

    def __call__(self, so_far: Measurement) -> bool:
        """Return whether the closed loop may end."""
        limits, span_s = self.thresholds, so_far.span_s
        limit_s = self.goal.warmup_limit_s
        if not so_far.succeeded:
            is_failing = so_far.failed >= limits.completions and span_s > 3
            return is_failing or span_s >= max(limit_s, so_far.load.timeout_s)
        # The first round fills the server.
        rounds = so_far.succeeded / so_far.load.cycle_requests - 1
        if rounds < limits.closed_cycles:
            # A rate far below the incumbent's needs no precise estimate.
            best = self.hopeless_rps
            return best is not None and span_s > 6 and 4 * so_far.succeeded / span_s < best
        if span_s >= limit_s:
            return span_s >= limits.closed_times * limit_s or not self._is_unsteady(so_far)
        if span_s < limits.closed_s / 2 or _rises(so_far, limits.rising):
            return False
        if (estimate := estimate_of(so_far)) is None:
            return False
        if self._is_hopeless(estimate):
            return True
        if span_s < limits.closed_s or self._is_unsteady(so_far):
            return False
        return self.depth is not Depth.FULL or estimate.relative_error <= limits.precise

    def _is_unsteady(self, so_far: Measurement) -> bool:
        """Return whether the server's speed changes so much that the loop must go on."""
        is_full = self.depth is Depth.FULL
        return is_full and standard_error_of(so_far) > self.thresholds.unsteady

    def _is_hopeless(self, estimate: Estimate) -> bool:
        highest_rps = self.thresholds.capacity_margin * estimate.high_rps
        return self.hopeless_rps is not None and highest_rps < self.hopeless_rps


def _rises(so_far: Measurement, share: float) -> bool:
    """Return whether the second half of the answers came faster than the first by this share."""
    times = answer_times(so_far)
    cycle = so_far.load.cycle_requests
    half = (len(times) - 1) // cycle // 2 * cycle
    if half < 1:
        return False
    first_s, second_s = times[half] - times[0], times[2 * half] - times[half]
    return bool(first_s > (1 + share) * second_s)
