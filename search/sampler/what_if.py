"""Answer what rate configurations of a finished or running study would have. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from search.sampler.prediction import predict_rates
from search.sampler.probing import known_observations
from search.spec.space import Space
from search.trial.prediction import PredictedRate
from search.trial.result import TrialResult
from serving.configuration.config import ServerConfig

#: Random configurations among which the fastest are searched.
_DRAWN = 400


def predict_configs(
    space: Space, results: Sequence[TrialResult], configs: Sequence[ServerConfig]
) -> list[PredictedRate]:
    """Return the predicted rate of each configuration; not known if it is outside of the space."""
    points = [space.values(config) for config in configs]
    points = [
        point if point and all(d.reaches(point[d.name]) for d in space.dimensions) else None
        for point in points
    ]
    known = [point for point in points if point is not None]
    predicted = iter(predict_rates(space, known_observations(results, space), known))
    return [PredictedRate() if point is None else next(predicted) for point in points]


def fastest_configs(
    space: Space, results: Sequence[TrialResult], count: int, seed: int = 0
) -> list[tuple[ServerConfig, PredictedRate]]:
    """Return the configurations with the highest predicted rates × probability to serve."""
    predicted = predicted_configs(space, results, seed)

    def expected_rps(entry: tuple[ServerConfig, PredictedRate]) -> float:
        return (entry[1].median_rps or 0.0) * (entry[1].serves or 0.0)

    return sorted(predicted, key=expected_rps, reverse=True)[:count]


def predicted_configs(
    space: Space, results: Sequence[TrialResult], seed: int = 0
) -> list[tuple[ServerConfig, PredictedRate]]:
    """Return the measured configurations, neighbours of the fastest and random ones.

    Each with its predicted rate; empty without a trial that served.
    """
    observations = known_observations(results, space)
    served = sorted((o for o in observations if o.served), key=lambda o: -o.rate_rps)
    if not served:
        return []
    points: list[dict[str, Any]] = [dict(o.point) for o in observations]
    points += space.draw(np.random.default_rng(seed), _DRAWN)
    points += [near for o in served[:3] for near in space.neighbours(o.point)]
    unique = {space.config(point).digest: point for point in points}
    predicted = predict_rates(space, observations, list(unique.values()))
    configs = [space.config(point) for point in unique.values()]
    return list(zip(configs, predicted, strict=True))
