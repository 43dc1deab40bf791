"""Predict the rate of configurations from the trials of a run. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from search.spec.space import Space
from search.study.feasibility import Feasibility
from search.study.observations import Observation, Point
from search.study.surrogate import Surrogate
from search.trial.prediction import PredictedRate

#: Probabilities of the bounds of an interval and of its middle.
QUANTILES = (0.05, 0.5, 0.95)


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
