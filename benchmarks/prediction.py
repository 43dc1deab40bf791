"""How well rates are predicted after a few trials of a simulated machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.contestants import starting_points
from benchmarks.surfaces import Simulated
from search.sampler.observations import Observation
from search.sampler.prediction import predict_rates
from servetune.errors import is_memory


@dataclass(frozen=True)
class PredictionQuality:
    """Predictions of random configurations that serve, against their true rates.

    Attributes:
        errors: |predicted ÷ true − 1|.
        covered: whether the 90 % interval contains the true rate.
        widths: high ÷ low of the interval.
    """

    errors: tuple[float, ...]
    covered: tuple[bool, ...]
    widths: tuple[float, ...]


def prediction_quality(
    surface: Simulated, seed: int, starts: int = 3, points: int = 500
) -> PredictionQuality:
    """Predict random configurations after the first starting points.

    Args:
        starts: number of trials.
        points: number of random configurations; those that fail are left out.
    """
    random = np.random.default_rng(seed)
    observations = []
    for point in starting_points(surface.space)[:starts]:
        telemetry = surface.telemetry(point, random)
        is_too_large = is_memory(surface.failure(point))
        rate_rps = surface.measure(point, random)
        observations.append(
            Observation(point, rate_rps, too_large=is_too_large, telemetry=telemetry)
        )
    drawn = surface.space.draw(random, points)
    served = [point for point in drawn if surface.true_rps(point) > 0]
    if not any(o.served for o in observations) or not served:
        return PredictionQuality((), (), ())
    true = np.array([surface.true_rps(point) for point in served])
    predicted = predict_rates(surface.space, observations, served, seed)
    low = np.array([p.low_rps for p in predicted])
    high = np.array([p.high_rps for p in predicted])
    middle = np.array([p.median_rps for p in predicted])
    return PredictionQuality(
        tuple(np.abs(middle / true - 1).tolist()),
        tuple(((low <= true) & (true <= high)).tolist()),
        tuple((high / low).tolist()),
    )
