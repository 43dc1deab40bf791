"""When an open window has shown enough. Pure."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from loadgen.measurement import BIN_S, Measurement
from loadgen.rate.goal import Goal
from loadgen.rate.verdict import COMPLETIONS, EARLY, Verdict, judge, least_window_s

STABLE_WINDOWS = 3
STABLE_WITHIN = 0.10
#: An overload this far above the goal's ends a window before its least duration.
CLEAR = 0.05
#: How much longer a window is at each look than at the one before.
LATER = 1.25


@dataclass
class Looks:
    """Whether a window that is still open has said all that it can say.

    Whoever looks again and again finds what he looks for in the end: the looks are few, each a
    quarter of the window later than the last.
    """

    goal: Goal
    width: float
    least_requests: float = COMPLETIONS
    limit_s: float = math.inf
    _next_s: float = 0.0

    def __call__(self, so_far: Measurement) -> bool:
        """Look at the window so far; True where it may end."""
        if so_far.errors:
            return True
        least_s = least_window_s(so_far, self.goal)
        if so_far.span_s < max(self._next_s, least_s / 2):
            return False
        self._next_s = LATER * so_far.span_s
        if so_far.span_s < self.limit_s:
            self._next_s = min(self._next_s, self.limit_s)
        elif not so_far.overload.fraction < self.width / 2:
            return True
        if so_far.span_s >= least_s:
            # A late generator is no better for waiting: such a window is repeated, not extended.
            verdict, _ = judge(so_far, self.goal, self.width, self.least_requests, early=True)
            return verdict is not Verdict.UNDECIDED
        # Early on only a backlog that grows beyond doubt counts: filling the server looks alike.
        self._next_s = min(self._next_s, least_s)
        return so_far.overload.surer(*EARLY).low > self.width / 2 + CLEAR


def stable_rate(measurement: Measurement) -> float | None:
    """The closed loop's throughput once it no longer changes, else None.

    The last three windows of at least 20 completions and two rounds of batches agree within
    10 %. In a closed loop latency is users ÷ throughput, so that one tells of both.
    """
    bins = int(measurement.span_s / BIN_S)
    answered = measurement.good[:bins].cumsum()
    rate = measurement.goodput_rps
    if not bins or rate <= 0:
        return None
    wanted = max(COMPLETIONS, 2 * measurement.load.cycle_requests)
    size = max(int(wanted / rate / BIN_S), int(1.0 / BIN_S))
    ends = [bins - 1 - size * back for back in range(STABLE_WINDOWS, -1, -1)]
    if ends[0] < 0:
        return None
    counts = [int(answered[b] - answered[a]) for a, b in itertools.pairwise(ends)]
    if min(counts) < COMPLETIONS or max(counts) > (1 + STABLE_WITHIN) * min(counts):
        return None
    return sum(counts) / (STABLE_WINDOWS * size * BIN_S)
