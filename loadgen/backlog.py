"""Whether requests pile up: the overload and its confidence bounds. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: A window starts empty: its first quarter fills the server and is left out of the trend.
SETTLING = 0.25
MIN_BLOCKS, MAX_BLOCKS = 6, 40
_RESAMPLES = 400


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

    def widened(self, low_times: float, high_times: float) -> Overload:
        """Return the same with bounds `low_times` and `high_times` as far away."""
        low = self.fraction - low_times * (self.fraction - self.low)
        return Overload(
            self.fraction, low, self.fraction + high_times * (self.high - self.fraction)
        )


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

    The trend is a line through the means of blocks of whole cycles. Its error comes from a
    bootstrap of runs of neighbouring residuals, because neighbours are correlated; the run length
    grows with the correlation (E. Carlstein, Annals of Statistics 14, 1986, for a process whose
    neighbours correlate).
    """
    steady = outstanding[int(len(outstanding) * SETTLING) :]
    cycle = max(round(cycle_s / bin_s), 1)
    size = cycle * max(1, len(steady) // cycle // MAX_BLOCKS)
    blocks = len(steady) // size
    if blocks < MIN_BLOCKS:
        return UNKNOWN
    means = steady[len(steady) - blocks * size :].reshape(blocks, size).mean(axis=1)
    time = (np.arange(blocks) - (blocks - 1) / 2) * size * bin_s
    slope = float(time @ means / (time @ time))
    residuals = means - means.mean() - slope * time
    run = _run_length(residuals)
    # Degrees of freedom: two for the line, and `run` for the runs.
    residuals *= np.sqrt(blocks / (blocks - 2 - run))
    draws = np.random.default_rng(0).integers(0, blocks, (_RESAMPLES, -(-blocks // run)))
    index = (draws[:, :, None] + np.arange(run)).reshape(_RESAMPLES, -1)[:, :blocks] % blocks
    slopes = slope + residuals[index] @ time / (time @ time)
    low, high = np.quantile(slopes, [0.05, 0.95])
    return Overload(slope / rate_rps, float(low) / rate_rps, float(high) / rate_rps)


def _run_length(residuals: npt.NDArray[np.float64]) -> int:
    """Return the length of bootstrap runs for the correlation of neighbours."""
    count = len(residuals)
    spread = float(residuals @ residuals)
    correlation = float(residuals[1:] @ residuals[:-1]) / spread if spread > 0 else 0.0
    correlation = min(max(correlation, 0.0), 0.95)
    length = (6**0.5 * correlation / (1 - correlation**2)) ** (2 / 3) * count ** (1 / 3)
    return min(max(2, round(float(length))), count // 3)
