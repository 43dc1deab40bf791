"""Latency against load, between the measured loads and not beyond. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loadgen.rate.pace import CURVE_SHARES
from search.answer.operating_points import LatencyPoint

_ROUNDING = 1e-9
Quantile = Literal["p50_s", "p90_s", "p99_s"]


@dataclass(frozen=True)
class LatencyCurve:
    """The measured latencies of a configuration, by rising share of its sustained rate.

    Between two measured loads, latencies are interpolated linearly. Latency rises ever faster with
    load, so that the truth is rather below the straight line.
    """

    points: tuple[LatencyPoint, ...]

    @classmethod
    def of(cls, points: Sequence[LatencyPoint]) -> LatencyCurve:
        """Return the curve of these points.

        Those without a p99 latency are left out, and those of far lower loads: a window there has
        few requests, and between it and the others nothing is known.
        """
        lowest = min(CURVE_SHARES)
        known = [p for p in points if p.p99_s is not None and p.share >= lowest - _ROUNDING]
        return cls(tuple(sorted(known, key=lambda point: point.share)))

    @property
    def lowest_share(self) -> float:
        """The lowest measured load, as a share of the sustained rate; infinity without any."""
        return self.points[0].share if self.points else float("inf")

    @property
    def highest_share(self) -> float:
        """The highest measured load, as a share of the sustained rate; 0 without any."""
        return self.points[-1].share if self.points else 0.0

    def at(self, share: float, quantile: Quantile) -> float | None:
        """Return a latency at a load, in seconds.

        Below the lowest measured load it is that at the lowest. None above the highest, or if a
        neighbouring load has no such latency.

        Args:
            share: load ÷ sustained rate.
        """
        # A load that equals the highest one must not exceed it because of rounding.
        if not self.points or share > self.highest_share * (1 + _ROUNDING):
            return None
        share = min(share, self.highest_share)
        index = bisect_left([point.share for point in self.points], share)
        above = self.points[index]
        high: float | None = getattr(above, quantile)
        if index == 0 or above.share == share:
            return high
        below = self.points[index - 1]
        low: float | None = getattr(below, quantile)
        if low is None or high is None:
            return None
        return low + (high - low) * (share - below.share) / (above.share - below.share)

    def bounds(
        self, low_share: float, high_share: float, quantile: Quantile
    ) -> tuple[float, float] | None:
        """Return the least and the greatest latency between two loads, in seconds.

        None if one of them is not known.
        """
        inner = [p.share for p in self.points if low_share < p.share < high_share]
        values = [self.at(share, quantile) for share in (low_share, *inner, high_share)]
        known = [value for value in values if value is not None]
        return (min(known), max(known)) if len(known) == len(values) else None

    def share_within(self, p99_s: float) -> float | None:
        """Return the highest load up to which p99 stays within a limit at every measured load.

        It is a share of the sustained rate; None if the lowest measured load exceeds the limit.
        """
        held: float | None = None
        for index, point in enumerate(self.points):
            found = point.p99_s or 0.0
            if found > p99_s:
                if index == 0:
                    return None
                below = self.points[index - 1]
                start = below.p99_s or 0.0
                part = (p99_s - start) / (found - start)
                return below.share + part * (point.share - below.share)
            held = point.share
        return held

    @property
    def least_p99(self) -> LatencyPoint | None:
        """The measured load with the lowest p99 latency; None without any."""
        return min(self.points, key=lambda point: point.p99_s or 0.0, default=None)
