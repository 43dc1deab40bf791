"""Predict rate, latency and memory of configurations from the trials of a run. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.intervals import Interval
from search.sampler.feasibility import Feasibility
from search.sampler.observations import Observation, Point
from search.sampler.surrogate import Surrogate
from search.sampler.targets import LogProcess
from search.spec.space import Space
from search.trial.prediction import PredictedRate

#: Probabilities of the bounds of a 90 % interval and of its middle. The parameter samples of a few
#: trials are spread too widely: on the machines of the development, the quantiles 0.05 and 0.95
#: contained 95 to 98 % of the true rates.
QUANTILES = (0.08, 0.5, 0.92)


def predict_rates(
    space: Space,
    observations: Sequence[Observation],
    points: Sequence[Point],
    seed: int = 0,
    surrogate: Surrogate | None = None,
) -> list[PredictedRate]:
    """Return the predicted rate of each point, with a 90 % interval of its true rate.

    Args:
        observations: of the trials so far.
        seed: of the parameter samples; the result depends on nothing else.
        surrogate: of the same observations; None to fit one.
    """
    if not points:
        return []
    if not any(o.served for o in observations):
        return [PredictedRate()] * len(points)
    surrogate = surrogate or Surrogate(space, observations, np.random.default_rng(seed))
    prediction = surrogate.predict(points).with_weights(surrogate.evidence)
    quantiles = np.exp(prediction.quantiles(QUANTILES))
    serves = Feasibility(space, observations).probability(points)
    return [
        _prediction(float(low), float(middle), float(high), float(probability))
        for (low, middle, high), probability in zip(quantiles.T, serves, strict=True)
    ]


def _prediction(low: float, middle: float, high: float, serves: float) -> PredictedRate:
    if not all(math.isfinite(rate) for rate in (low, middle, high)):
        return PredictedRate(serves=serves)
    return PredictedRate(middle, low, high, serves)


@dataclass(frozen=True)
class FigureRules:
    """When a figure of configurations can be predicted from the measured ones.

    Attributes:
        sd: standard deviation of the logarithm of a measurement, at least.
        max_ratio: with a wider 90 % interval (high ÷ low), the figure is not known.
        least: number of measured configurations that are needed.
        least_inside: share of the measured values that the others must predict within 90 %.
    """

    sd: float
    max_ratio: float
    least: int = 6
    least_inside: float = 0.75


#: The p99 latency of a window of a few hundred requests varies by about 12 %, and near the capacity
#: doubles with small changes of the load: twice or half the median is still of use.
P99_RULES = FigureRules(sd=0.12, max_ratio=4.0)
#: The peak memory of equal servers varies by about 2 %.
MEMORY_RULES = FigureRules(sd=0.02, max_ratio=1.5)


@dataclass(frozen=True)
class FigurePrediction:
    """The predictions of one figure.

    Attributes:
        values: by point, the median and the 90 % interval of one more measurement; None where the
            figure is not known.
        reason: why all are unknown, without a full stop; empty otherwise.
    """

    values: tuple[Interval | None, ...]
    reason: str = ""


def predict_figure(
    space: Space,
    measured: Sequence[tuple[Point, float]],
    points: Sequence[Point],
    rules: FigureRules,
    seed: int = 0,
) -> FigurePrediction:
    """Predict a positive figure at points by a Gaussian process of its logarithm.

    The process is not used if it does not predict the measured values themselves, each from the
    others.

    Args:
        measured: points with their values.
        seed: of the parameter samples; the result depends on nothing else.
    """
    unknown = (None,) * len(points)
    if len(measured) < rules.least:
        return FigurePrediction(
            unknown, f"{len(measured)} configurations were measured, and {rules.least} are needed"
        )
    if not points:
        return FigurePrediction(())
    known, values = zip(*measured, strict=True)
    process = LogProcess(space, known, values, rules.sd, np.random.default_rng(seed))
    levels = process.left_out_levels()
    inside = int(np.sum((levels > 0.05) & (levels < 0.95)))
    if inside < rules.least_inside * len(measured):
        return FigurePrediction(
            unknown,
            f"the measured values do not predict each other: {inside} of {len(measured)} are in "
            "the 90 % interval that the others predict",
        )
    low, median, high = process.quantiles(points, (0.05, 0.5, 0.95)).tolist()
    found = tuple(
        Interval(m, lo, hi) if hi <= rules.max_ratio * lo else None
        for lo, m, hi in zip(low, median, high, strict=True)
    )
    is_any_known = any(figure is not None for figure in found)
    return FigurePrediction(found, "" if is_any_known else "the 90 % intervals are too wide")
