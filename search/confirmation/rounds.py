"""Interleaved rounds of measurements: rates and ratios. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from search.trial.result import TrialResult


def measurement_order(round_number: int, indices: Iterable[int]) -> list[int]:
    """Return the indices of a round's configurations in the order of measurement.

    Odd rounds run backwards, so that a drift of the host favors no configuration.
    """
    forward = list(indices)
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

    def ratios(self, index: int, to: int = 0) -> list[float]:
        """Return the ratio of two configurations' rates by round, if both have a rate."""
        return [
            ours.sustained_rps / theirs.sustained_rps
            for ours, theirs in zip(self.results[index], self.results[to], strict=True)
            if ours.sustained_rps and theirs.sustained_rps
        ]

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
