"""What interleaved rounds of several configurations say: ratios, intervals, a decision. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from search.study.intervals import mean_interval
from search.trial.result import TrialResult

#: A finalist with a lower latency may have so much of the leader's rate.
ALIKE = 0.95


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
        return [r.sustained_rps or 0.0 for r in self.results[index] if not r.is_inconclusive]

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

    def comparison_p99_s(self, index: int) -> float | None:
        """The median p99 latency at the common rate, seconds; None where it was not measured."""
        seen = [
            r.latency.comparison_p99_s
            for r in self.results[index]
            if r.latency.comparison_p99_s is not None
        ]
        return median(seen) if seen else None

    def leader(self, among: Sequence[int]) -> int:
        """Of those that failed in the fewest rounds, the one with the greatest mean rate."""

        def worth(index: int) -> tuple[float, float]:
            if not (served := self.served(index)):
                return -np.inf, 0.0
            return len(served) - len(self.rates(index)), float(np.log(served).mean())

        return max(among, key=worth)

    def indistinguishable_from(self, index: int, among: Sequence[int]) -> list[int]:
        """Which others the paired ratios do not separate from this one."""
        found = []
        for other in among:
            interval = mean_interval(self.ratios(other, index))
            failed = 0.0 in self.rates(other)
            if other != index and not failed and not (interval and interval.excludes_one):
                found.append(other)
        return found

    def winner(self, among: Sequence[int]) -> int:
        """The leader, or of those that are not told apart from it the one that answers faster."""
        leader = self.leader(among)
        if self.comparison_p99_s(leader) is None:
            return leader
        alike = [leader]
        for other in self.indistinguishable_from(leader, among):
            # Few rounds tell nobody apart: what looks clearly slower is not taken for that.
            ratios = self.ratios(other, leader)
            if ratios and float(np.exp(np.log(ratios).mean())) >= ALIKE:
                alike.append(other)
        return min(alike, key=lambda index: self.comparison_p99_s(index) or np.inf)

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
