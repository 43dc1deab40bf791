"""Confidence intervals of rates and ratios. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A geometric mean or median, and the bounds of its 95 % interval, unless another is named."""

    mean: float
    low: float
    high: float

    @property
    def excludes_one(self) -> bool:
        """Whether 1 is outside of the interval."""
        return not self.low <= 1 <= self.high

    @property
    def half_width(self) -> float:
        """Half of the interval's width, relative to the mean."""
        return (self.high - self.low) / (2 * self.mean)

    @property
    def inverse(self) -> Interval:
        """The interval of 1 ÷ the quantity."""
        return Interval(1 / self.mean, 1 / self.high, 1 / self.low)

    def scaled(self, factor: float) -> Interval:
        """Return the interval of a quantity that is `factor` times as large."""
        return Interval(factor * self.mean, factor * self.low, factor * self.high)


def t_quantile(dof: float, confidence: float = CONFIDENCE) -> float:
    """Return how many standard errors a two-sided interval extends: Student's t."""
    return float(special.stdtrit(dof, 0.5 + confidence / 2))


def log_interval(log_mean: float, log_half: float) -> Interval:
    """Return the interval whose logarithms are log_mean ± log_half."""
    low, mean, high = np.exp([log_mean - log_half, log_mean, log_mean + log_half])
    return Interval(float(mean), float(low), float(high))


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Return the confidence interval of the geometric mean of positive values.

    Student's t on the logarithms. None for fewer than two values.
    """
    return _interval(values, 1 / max(len(values), 1))


def ratio_interval(ours: Sequence[float], theirs: Sequence[float]) -> Interval | None:
    """Return the confidence interval of the ratio of two geometric means, unpaired.

    Welch's t on the logarithms. None if either side has fewer than two values.
    """
    if min(len(ours), len(theirs)) < 2:
        return None
    logs = np.log(ours), np.log(theirs)
    bounds = stats.ttest_ind(*logs, equal_var=False).confidence_interval(CONFIDENCE)
    low, high = float(np.exp(bounds.low)), float(np.exp(bounds.high))
    return Interval(float(np.exp(logs[0].mean() - logs[1].mean())), low, high)


def prediction_interval(values: Sequence[float]) -> Interval | None:
    """Return the prediction interval of one more value; None for fewer than two values."""
    return _interval(values, 1 + 1 / max(len(values), 1))


def _interval(values: Sequence[float], variance_factor: float) -> Interval | None:
    """Return mean ± t × s × √variance_factor, computed on the logarithms."""
    if len(values) < 2:
        return None
    logs = np.log(values)
    t = t_quantile(len(values) - 1)
    return log_interval(float(logs.mean()), float(t * logs.std(ddof=1) * variance_factor**0.5))
