"""Whether requests pile up: the overload and its confidence bounds. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

#: A window starts empty: its first quarter fills the server and is left out of the trend.
SETTLING = 0.25
MIN_BLOCKS, MAX_BLOCKS = 6, 40
#: A corrected correlation above this counts as 1. A random walk of 9 to 15 blocks is often found
#: at 0.5: with 0.7, 11 % of the bounds of windows of 12 rounds were wrong instead of 5 %.
UNIT_ROOT = 0.2
#: The mean of a random walk over a block moves less than the walk itself: the variance of the
#: differences of such means is 2/3 of that of the walk (H. Working, Econometrica 28, 1960).
_WORKING = 1.5
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Overload:
    """Growth of the outstanding requests ÷ the offered rate.

    Attributes:
        fraction: 0 if the rate is sustained, 0.1 if it is a tenth too high.
        low, high: 95 % bounds, one-sided each; infinite if the window is too short.
    """

    fraction: float
    low: float
    high: float

    def widened(self, times: float) -> Overload:
        """Return the same with bounds `times` as far away."""
        low = self.fraction - times * (self.fraction - self.low)
        return Overload(self.fraction, low, self.fraction + times * (self.high - self.fraction))


UNKNOWN = Overload(float("nan"), float("-inf"), float("inf"))


def overload(
    outstanding: npt.NDArray[np.float64], bin_s: float, rate_rps: float, cycle_s: float
) -> Overload:
    """Return the overload of a window.

    Args:
        outstanding: requests sent and not yet answered, at the end of each bin.
        bin_s: the length of a bin, seconds.
        rate_rps: the rate at which requests were due.
        cycle_s: the time of one round of batches. Within it the number of outstanding requests
            is a sawtooth; only means over whole cycles show a trend.

    The trend is a line through the means of blocks of whole cycles.
    """
    steady = outstanding[int(len(outstanding) * SETTLING) :]
    cycle = max(round(cycle_s / bin_s), 1)
    size = cycle * max(1, len(steady) // cycle // MAX_BLOCKS)
    blocks = len(steady) // size
    if blocks < MIN_BLOCKS:
        return UNKNOWN
    means = steady[len(steady) - blocks * size :].reshape(blocks, size).mean(axis=1)
    slope, error, freedom = trend(means)
    bound = float(stats.t.ppf(_CONFIDENCE, freedom)) * error
    scale = size * bin_s * rate_rps
    return Overload(slope / scale, (slope - bound) / scale, (slope + bound) / scale)


def trend(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the slope of a line per value, its standard error, and the degrees of freedom.

    The residuals are a first-order autoregression (Prais and Winsten, 1954). Near saturation a
    backlog is a random walk: from a correlation of `UNIT_ROOT` on, the slope is the mean
    difference of neighbours, whose error does not assume that the backlog returns to a level.
    """
    count = len(values)
    time = np.arange(count) - (count - 1) / 2
    slope = float(time @ values / (time @ time))
    residuals = values - values.mean() - slope * time
    if not residuals @ residuals > 1e-12 * max(float(values @ values), 1e-12):
        return slope, 0.0, count - 2
    correlation = corrected_correlation(residuals, parameters=2)
    if correlation > UNIT_ROOT:
        steps = np.diff(values)
        error = float(steps.std(ddof=1)) * math.sqrt(_WORKING / (count - 1))
        return float(steps.mean()), error, count - 4
    rho = max(correlation, 0.0)
    first = math.sqrt(1 - rho**2)
    target = np.r_[first * values[0], values[1:] - rho * values[:-1]]
    level = np.r_[first, np.full(count - 1, 1 - rho)]
    design = np.column_stack([level, np.r_[first * time[0], time[1:] - rho * time[:-1]]])
    inverse = np.linalg.inv(design.T @ design)
    line = inverse @ design.T @ target
    rest = target - design @ line
    # The line, the correlation, and its correction.
    freedom = count - 4
    error = math.sqrt(float(rest @ rest) / freedom * float(inverse[1, 1]))
    return float(line[1]), error, freedom


def corrected_correlation(residuals: npt.NDArray[np.float64], parameters: int) -> float:
    """Return the correlation of neighbours, corrected for the parameters that were fitted.

    The residuals of few values correlate less than their errors: by about
    (parameters + (2 + parameters) × correlation) ÷ count (Marriott and Pope, Biometrika 41, 1954).
    """
    count = len(residuals)
    spread = float(residuals @ residuals)
    if spread <= 0 or count <= 2 + parameters:
        return 0.0
    found = float(residuals[1:] @ residuals[:-1]) / spread
    return (count * found + parameters) / (count - 2 - parameters)
