"""What interleaved rounds of several configurations say: ratios, intervals, a decision. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from scipy import stats

from search.result import TrialResult

CONFIDENCE = 0.95
#: A finalist with a lower latency may have so much of the leader's rate.
ALIKE = 0.95


@dataclass(frozen=True)
class Interval:
    """A geometric mean, and the bounds of something around it at 95 % confidence."""

    mean: float
    low: float
    high: float

    @property
    def parts_from_one(self) -> bool:
        """Whether 1 lies outside."""
        return not self.low <= 1 <= self.high


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Where the mean of positive values lies, by Student's t on their logarithms.

    None for fewer than two.
    """
    return _interval(values, 1 / max(len(values), 1))


def ratio_interval(ours: Sequence[float], theirs: Sequence[float]) -> Interval | None:
    """Where the ratio of two means lies whose values were not measured in pairs (Welch).

    None where either has fewer than two.
    """
    if min(len(ours), len(theirs)) < 2:
        return None
    logs = np.log(ours), np.log(theirs)
    bounds = stats.ttest_ind(*logs, equal_var=False).confidence_interval(CONFIDENCE)
    low, high = float(np.exp(bounds.low)), float(np.exp(bounds.high))
    return Interval(float(np.exp(logs[0].mean() - logs[1].mean())), low, high)


def prediction_interval(values: Sequence[float]) -> Interval | None:
    """Where one more such value will lie; None for fewer than two."""
    return _interval(values, 1 + 1 / max(len(values), 1))


def _interval(values: Sequence[float], of_variance: float) -> Interval | None:
    if len(values) < 2:
        return None
    logs = np.log(values)
    t = stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)
    half = t * logs.std(ddof=1) * of_variance**0.5
    low, mean, high = np.exp([logs.mean() - half, logs.mean(), logs.mean() + half])
    return Interval(float(mean), float(low), float(high))


def order(number: int, count: int) -> list[int]:
    """In which order a round's configurations are measured.

    It turns around from round to round, so that a drift of the host favours none.
    """
    forward = list(range(count))
    return forward if number % 2 == 0 else forward[::-1]


@dataclass(frozen=True)
class Rounds:
    """Measurements of several configurations, interleaved: a list for each, one entry a round."""

    results: tuple[tuple[TrialResult, ...], ...]

    @property
    def count(self) -> int:
        """How many rounds there were."""
        return len(self.results[0]) if self.results else 0

    def rates(self, index: int) -> list[float]:
        """The rates of a configuration, 0 where it had none by its own fault."""
        return [r.sustained_rps or 0.0 for r in self.results[index] if not r.says_nothing]

    def served(self, index: int) -> list[float]:
        """Those of its rates that are more than nothing."""
        return [rate for rate in self.rates(index) if rate]

    def ratios(self, index: int, to: int = 0) -> list[float]:
        """Each round's rate of one ÷ that of another, where both have one."""
        return [
            ours.sustained_rps / theirs.sustained_rps
            for ours, theirs in zip(self.results[index], self.results[to], strict=True)
            if ours.sustained_rps and theirs.sustained_rps
        ]

    def common_p99_s(self, index: int) -> float | None:
        """The median p99 latency at the common rate, seconds; None where it was not measured."""
        seen = [r.common_p99_s for r in self.results[index] if r.common_p99_s is not None]
        return median(seen) if seen else None

    def leader(self, among: Sequence[int]) -> int:
        """Of those that failed in the fewest rounds, the one with the greatest mean rate."""

        def worth(index: int) -> tuple[float, float]:
            if not (served := self.served(index)):
                return -np.inf, 0.0
            return len(served) - len(self.rates(index)), float(np.log(served).mean())

        return max(among, key=worth)

    def not_told_apart(self, index: int, among: Sequence[int]) -> list[int]:
        """Which others the paired ratios do not separate from this one."""
        found = []
        for other in among:
            interval = mean_interval(self.ratios(other, index))
            failed = 0.0 in self.rates(other)
            if other != index and not failed and not (interval and interval.parts_from_one):
                found.append(other)
        return found

    def winner(self, among: Sequence[int]) -> int:
        """The leader, or of those that are not told apart from it the one that answers faster."""
        leader = self.leader(among)
        if self.common_p99_s(leader) is None:
            return leader
        alike = [leader]
        for other in self.not_told_apart(leader, among):
            # Few rounds tell nobody apart: what looks clearly slower is not taken for that.
            ratios = self.ratios(other, leader)
            if ratios and float(np.exp(np.log(ratios).mean())) >= ALIKE:
                alike.append(other)
        return min(alike, key=lambda index: self.common_p99_s(index) or np.inf)

    def summary(self, names: Sequence[str]) -> dict[str, Any]:
        """Plain JSON data."""
        entries = []
        for index, (name, results) in enumerate(zip(names, self.results, strict=True)):
            ratios = self.ratios(index)
            entries.append(
                {
                    "config": name,
                    "sustained_rps": [r.sustained_rps for r in results],
                    "ratio_to_first": ratios,
                    "median_ratio_to_first": median(ratios) if ratios else None,
                    "results": [r.to_dict() for r in results],
                }
            )
        return {"rounds": self.count, "configs": entries}
