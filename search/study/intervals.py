"""Confidence intervals of rates and ratios. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A geometric mean, and the bounds of something around it at 95 % confidence."""

    mean: float
    low: float
    high: float

    @property
    def excludes_one(self) -> bool:
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
