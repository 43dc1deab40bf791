"""Interleaved rounds of measurements: rates, ratios, and the winner. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from search.study.intervals import mean_interval
from search.trial.result import TrialResult

#: A configuration with a lower latency wins only with at least this share of the leader's rate.
MIN_SHARE_OF_LEADER = 0.95


def measurement_order(round_number: int, count: int) -> list[int]:
    """Return the indices of a round's configurations in the order of measurement.

    Odd rounds run backwards, so that a drift of the host favours no configuration.
    """
    forward = list(range(count))
    return forward if round_number % 2 == 0 else forward[::-1]


@dataclass(frozen=True)
class Rounds:
    """Interleaved measurements of several configurations.

    Attributes:
        results: by configuration, then by round.
    """

    results: tuple[tuple[TrialResult, ...], ...]

    @property
    def count(self) -> int:
        """The number of rounds."""
        return len(self.results[0]) if self.results else 0

    def rates(self, index: int) -> list[float]:
        """Return the rates of a configuration, 0 for a failure, without inconclusive results."""
        return [r.sustained_rps or 0.0 for r in self.results[index] if not r.is_inconclusive]

    def positive_rates(self, index: int) -> list[float]:
        """Return the rates of a configuration that are above 0."""
        return [rate for rate in self.rates(index) if rate]

    def ratios(self, index: int, to: int = 0) -> list[float]:
        """Return the ratio of two configurations' rates by round, if both have a rate."""
        return [
            ours.sustained_rps / theirs.sustained_rps
            for ours, theirs in zip(self.results[index], self.results[to], strict=True)
            if ours.sustained_rps and theirs.sustained_rps
        ]

    def comparison_p99_s(self, index: int) -> float | None:
        """Return the median p99 latency at the comparison rate, seconds; None if not measured."""
        latencies_s = [
            r.latency.comparison_p99_s
            for r in self.results[index]
            if r.latency.comparison_p99_s is not None
        ]
        return median(latencies_s) if latencies_s else None

    def leader(self, candidates: Sequence[int]) -> int:
        """Return the candidate with the fewest failed rounds, then the highest mean rate."""

        def rank(index: int) -> tuple[float, float]:
            if not (rates := self.positive_rates(index)):
                return -np.inf, 0.0
            return len(rates) - len(self.rates(index)), float(np.log(rates).mean())

        return max(candidates, key=rank)

    def indistinguishable_from(self, index: int, candidates: Sequence[int]) -> list[int]:
        """Return the candidates whose paired ratios to this one include 1 and that never failed."""
        indistinguishable = []
        for other in candidates:
            interval = mean_interval(self.ratios(other, index))
            failed = 0.0 in self.rates(other)
            if other != index and not failed and not (interval and interval.excludes_one):
                indistinguishable.append(other)
        return indistinguishable

    def winner(self, candidates: Sequence[int]) -> int:
        """Return the fastest to answer of the leader and those indistinguishable from it."""
        leader = self.leader(candidates)
        if self.comparison_p99_s(leader) is None:
            return leader
        tied = [leader]
        for other in self.indistinguishable_from(leader, candidates):
            # With few rounds the interval is wide: the mean ratio must be close to 1 as well.
            ratios = self.ratios(other, leader)
            if ratios and float(np.exp(np.log(ratios).mean())) >= MIN_SHARE_OF_LEADER:
                tied.append(other)
        return min(tied, key=lambda index: self.comparison_p99_s(index) or np.inf)

    def summary(self, names: Sequence[str]) -> dict[str, Any]:
        """Return plain JSON data, with a name for each configuration."""
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
