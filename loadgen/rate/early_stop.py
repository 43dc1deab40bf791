"""Rules for ending an open window early. Pure."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from loadgen.measurement import BIN_S, Measurement
from loadgen.rate.goal import Goal
from loadgen.rate.thresholds import DEFAULT_THRESHOLDS, Thresholds
from loadgen.rate.verdict import Verdict, judge, least_window_s


@dataclass
class EarlyStop:
    """Decides whether an open window may end; called repeatedly with the window so far.

    Checks are few and get rarer: frequent checks find by chance what they look for.
    """

    goal: Goal
    width: float
    least_requests: float
    limit_s: float = math.inf
    thresholds: Thresholds = DEFAULT_THRESHOLDS
    _next_check_s: float = 0.0

    def __call__(self, so_far: Measurement) -> bool:
        """Return whether the window may end."""
        limits = self.thresholds
        if so_far.errors:
            return True
        least_s = least_window_s(so_far, self.goal, limits)
        if so_far.span_s < max(self._next_check_s, least_s / 2):
            return False
        self._next_check_s = limits.check_growth * so_far.span_s
        if so_far.span_s < self.limit_s:
            self._next_check_s = min(self._next_check_s, self.limit_s)
        elif not so_far.overload.fraction < self.width / 2:
            return True
        if so_far.span_s >= least_s:
            # A late generator does not recover: such a window is repeated, not extended.
            verdict, _ = judge(so_far, self.goal, self.width, self.least_requests, True, limits)
            return verdict is not Verdict.UNDECIDED
        # Before that only an obvious overload counts: filling the server looks alike.
        self._next_check_s = min(self._next_check_s, least_s)
        widened = so_far.overload.widened(limits.early_low, limits.early_high)
        return widened.low > self.width / 2 + limits.clear_overload


def stable_rate(
    measurement: Measurement, thresholds: Thresholds = DEFAULT_THRESHOLDS
) -> float | None:
    """Return the closed loop's throughput once it no longer changes, else None.

    The last parts, each of at least `completions` answers and two rounds of batches, must agree.
    In a closed loop latency is users ÷ throughput, so that throughput alone is enough.
    """
    bins = int(measurement.span_s / BIN_S)
    answered = measurement.good[:bins].cumsum()
    rate = measurement.goodput_rps
    if not bins or rate <= 0:
        return None
    parts = thresholds.stable_windows
    answers = max(thresholds.completions, 2 * measurement.load.cycle_requests)
    size = max(int(answers / rate / BIN_S), int(1.0 / BIN_S))
    ends = [bins - 1 - size * back for back in range(parts, -1, -1)]
    if ends[0] < 0:
        return None
    counts = [int(answered[b] - answered[a]) for a, b in itertools.pairwise(ends)]
    if min(counts) < thresholds.completions or max(counts) > (1 + thresholds.stable_within) * min(
        counts
    ):
        return None
    return sum(counts) / (parts * size * BIN_S)
