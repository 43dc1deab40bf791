"""Tell drift from noise in the history of a rate: a self-starting CUSUM chart. Pure.

Each measurement is compared with the mean of all before the first that raised the sum, in standard
deviations of its prediction; what exceeds half of the shift to find is summed up. When the sum
rises, the caller measures again at once, which halves the false alarms at the same delay.
Source: Hawkins, Self-starting CUSUM charts for location and scale (1987); Page (1954).
ruptures and apache-otava segment a whole history, and have no rule for the newest night.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Standard deviation of one measurement of the same configuration, as a share of its rate.
NOISE = 0.05
#: The claim counts as this many measurements.
_CLAIM_WEIGHT = 4
#: In standard deviations: what is not summed up, where the sum means drift, and where a
#: measurement is repeated. Chosen by simulation, see docs/deploy/index.md.
_ALLOWANCE, _LIMIT, _WARNING = 0.8, 3.5, 0.5
MAX_REPEATS = 3


@dataclass(frozen=True)
class Drift:
    """The state of the chart after a history.

    Attributes:
        sum: accumulated evidence of a lower rate, standard deviations.
        ratio: the mean of the measurements since the evidence began ÷ the mean before.
    """

    sum: float
    ratio: float

    @property
    def is_drift(self) -> bool:
        """Whether the rate is lower than before."""
        return self.sum > _LIMIT

    @property
    def is_uncertain(self) -> bool:
        """Whether one more measurement would tell."""
        return _WARNING < self.sum <= _LIMIT


def detect_drift(expected_rps: float, history_rps: Sequence[float], noise: float = NOISE) -> Drift:
    """Return the state after these measurements, oldest first; a drift starts the chart again.

    Args:
        expected_rps: the rate that the confirmation expects of one measurement.
        history_rps: measured rates; one of 0 is drift at once.
        noise: standard deviation of one measurement as a share of the rate.
    """
    mean, weight, total = math.log(expected_rps), float(_CLAIM_WEIGHT), 0.0
    suspected: list[float] = []
    for rate_rps in history_rps:
        if total > _LIMIT:
            weight, total, suspected = float(_CLAIM_WEIGHT), 0.0, []
        if rate_rps <= 0:
            total = math.inf
            continue
        value = math.log(rate_rps)
        deviation = (mean - value) / (noise * math.sqrt(1 + 1 / weight))
        total = max(0.0, total + deviation - _ALLOWANCE)
        suspected.append(value)
        if total == 0.0:  # Not lower than before, and so part of it.
            mean = (mean * weight + sum(suspected)) / (weight + len(suspected))
            weight += len(suspected)
            suspected = []
    if math.isinf(total):
        return Drift(total, 0.0)
    ratio = math.exp(sum(suspected) / len(suspected) - mean) if suspected else 1.0
    return Drift(total, ratio)
