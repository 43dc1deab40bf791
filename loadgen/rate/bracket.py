"""Bracketing of a rate between one that passed and one that did not. Pure.

Only servers with short queues and goals for the p99 latency need it: their limit does not follow
from the throughput of a saturated server. MLRsearch (RFC 9971) decides by a majority of windows,
but here no window with a failure may be outvoted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class Bracket:
    """The rates that passed, a higher one that did not, and the rate to offer next.

    Attributes:
        failed_rps: the lowest rate that did not pass.
        width: relative distance of the bounds at which the search ends.
        lowest_rps: nothing is offered below this rate.
        step: share by which the failed rate is lowered if none passed; it doubles each time.
    """

    failed_rps: float
    width: float
    lowest_rps: float
    step: float
    _passed: list[float] = field(default_factory=list)

    @property
    def passed_rps(self) -> float | None:
        """The highest rate that passed, below every rate that did not; None if none did."""
        return max(self._passed, default=None)

    def next_rps(self) -> float | None:
        """Return the rate to offer next; None if the bounds are close enough, or none is left."""
        if (passed := self.passed_rps) is None:
            rate = self.failed_rps * (1 - self.step)
            return rate if rate >= self.lowest_rps else None
        if self.failed_rps * (1 - self.width) <= passed:
            return None
        return math.sqrt(passed * self.failed_rps)

    def record(self, rate_rps: float, passed: bool) -> None:
        """Record whether a rate passed; a failure also refutes every higher rate."""
        if passed:
            self._passed.append(rate_rps)
            return
        self.failed_rps = min(rate_rps, self.failed_rps)
        self._passed = [rate for rate in self._passed if rate < self.failed_rps]
        if not self._passed:
            self.step = min(2 * self.step, 0.5)
