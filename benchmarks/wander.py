"""A server speed that wanders, as that of a shared host does."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

Floats = npt.NDArray[np.float64]

_STEPS_PER_TIME_CONSTANT = 30
_LONGEST_STEP_S = 0.1


def ornstein_uhlenbeck(
    time_constant_s: float, step_s: float, steps: int, random: np.random.Generator
) -> Floats:
    """Return a stationary process of mean 0 and variance 1 at equal steps of time.

    Args:
        time_constant_s: time in which the correlation falls to 1 / e, seconds.
    """
    kept = np.exp(-step_s / time_constant_s)
    shocks = random.standard_normal(steps)
    # The first value has the stationary variance, and so do all others.
    shocks[1:] *= np.sqrt(1 - kept**2)
    process: Floats = lfilter([1.0], [1.0, -kept], shocks)
    return process


class Wander:
    """Speed over time: exp of an Ornstein-Uhlenbeck process, with mean 1.

    Args:
        sd: standard deviation of the logarithm of the speed.
        time_constant_s: time in which the correlation falls to 1 / e, seconds.
        horizon_s: seconds for which the speed is drawn; 1 after that.
    """

    def __init__(self, sd: float, time_constant_s: float, seed: int = 0, horizon_s: float = 1200.0):
        self._step_s = min(time_constant_s / _STEPS_PER_TIME_CONSTANT, _LONGEST_STEP_S)
        steps = int(horizon_s / self._step_s)
        random = np.random.default_rng(seed)
        process = ornstein_uhlenbeck(time_constant_s, self._step_s, steps, random)
        self._speed = np.exp(sd * process - sd**2 / 2)

    @cached_property
    def _work_s(self) -> Floats:
        return np.concatenate([[0.0], np.cumsum(self._speed) * self._step_s])

    @cached_property
    def _time_s(self) -> Floats:
        return np.arange(len(self._work_s), dtype=float) * self._step_s

    def work_s(self, begin_s: float, end_s: float) -> float:
        """Return the seconds of work, at speed 1, that are done between two times."""
        begin, end = np.interp([begin_s, end_s], self._time_s, self._work_s)
        beyond = max(end_s - self._time_s[-1], 0.0) - max(begin_s - self._time_s[-1], 0.0)
        return float(end - begin + beyond)

    def end_s(self, begin_s: float, work_s: float) -> float:
        """Return when work that begins at begin_s ends."""
        index = begin_s / self._step_s
        low = int(index)
        if low >= len(self._speed):
            return begin_s + work_s
        done = float(self._work_s[low]) + (index - low) * self._step_s * float(self._speed[low])
        target = done + work_s
        after = int(np.searchsorted(self._work_s, target))
        if after >= len(self._work_s):
            return float(self._time_s[-1] + target - self._work_s[-1])
        missing = float(self._work_s[after]) - target
        return after * self._step_s - missing / float(self._speed[after - 1])
