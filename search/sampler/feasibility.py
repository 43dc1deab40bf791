"""The probability that a configuration serves at all. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from search.sampler.features import Features, Floats, log2_settings, log_sizes, squared_distances
from search.sampler.observations import Observation, Point
from search.spec.space import Space

_LENGTH_SCALE = 0.7
#: Memory of an item ÷ that of a worker; the last one is a limit on the batch alone.
_RATIOS = np.geomspace(1e-3, 10.0, 15)
_CONTRADICTED_WEIGHT = 1e-3
#: Distance of the limit's lower bound, in log size, if nothing served.
_MAX_LOG_GAP = math.log(1000)
#: Standard deviation of the measured memory around its model. The likelihood has a lower bound,
#: because the measured memory may not be the one that ran out.
_MEMORY_SD, _MIN_LIKELIHOOD = 0.1, 0.1


class Feasibility:
    """The probability that a point serves.

    Two factors:

    - Memory: a point is too large if its size is above a limit between the largest point that
      served and the smallest that was too large. The size is workers × (1 + ratio × batch) for a
      grid of ratios (memory of an item ÷ that of a worker), or the batch alone. The sizes are
      averaged, and those that contradict the trials have almost no weight. The measured memory of
      the trials adds weight to the ratios that explain it.
    - Other failures: a kernel-weighted share of the trials that served, by distance in log₂ of
      workers, batch and threads.
    """

    def __init__(self, space: Space, observations: Sequence[Observation]):
        self._space = space
        features = Features(space, [o.point for o in observations])
        served = np.array([o.served for o in observations])
        violated = np.array([o.violated for o in observations])
        too_large = np.array([o.too_large for o in observations])
        others = ~too_large  # A neighbour of a point that is too large may be small enough.
        is_reason_known = bool(too_large.any())
        if not is_reason_known:
            too_large = ~served & ~violated  # A failure without a reason may be one of memory.
        self._served = (served & ~violated)[others]
        self._log2_settings = log2_settings(features)[:, others]
        sizes = _sizes(features)
        self._upper = np.min(sizes, axis=1, where=too_large, initial=math.inf)
        lower = np.max(sizes, axis=1, where=served, initial=-math.inf)
        is_consistent = lower < self._upper
        if not is_reason_known and not is_consistent.any():
            self._upper = np.full(
                len(sizes), math.inf
            )  # Larger points served: memory is no reason.
            is_consistent[:] = True
        self._weights = np.where(is_consistent, 1.0, _CONTRADICTED_WEIGHT)
        self._weights = self._weights * _memory_likelihood(sizes, observations)
        self._lower = np.where(
            is_consistent, np.maximum(lower, self._upper - _MAX_LOG_GAP), -math.inf
        )

    def probability(self, points: Sequence[Point]) -> Floats:
        """Return the probability that each point serves."""
        features = Features(self._space, points)
        squared = squared_distances(log2_settings(features), self._log2_settings)
        closeness = np.exp(-squared.sum(axis=0) / (2 * _LENGTH_SCALE**2))
        serves: Floats = (closeness @ self._served + 0.5) / (closeness.sum(axis=1) + 0.5)
        if math.isinf(self._upper[0]):
            return serves
        upper, lower = self._upper[:, None], self._lower[:, None]
        gap = np.maximum(upper - lower, 1e-9)
        fits = np.clip((upper - _sizes(features)) / gap, 0.0, 1.0)
        probability: Floats = serves * (self._weights @ fits) / self._weights.sum()
        return probability


def _sizes(features: Features) -> Floats:
    """Return the log of each point's size, shape (ratios and the batch alone, points)."""
    return np.vstack([log_sizes(features, _RATIOS), np.log(features.batch)])


def _memory_likelihood(sizes: Floats, observations: Sequence[Observation]) -> Floats:
    """Return how well each size explains the measured memory, at most 1.

    The measured memory is a constant, that of the front end, plus a multiple of the size.
    """
    known = [
        (i, o.telemetry.memory_mb)
        for i, o in enumerate(observations)
        if o.telemetry.memory_mb and o.served
    ]
    if len(known) < 3:
        return np.ones(len(sizes))
    memory = np.array([mb for _, mb in known])
    errors = []
    for size in np.exp(sizes[:, [i for i, _ in known]]):
        design = np.stack([np.ones_like(size), size], axis=1) / memory[:, None]
        solution, *_ = np.linalg.lstsq(design, np.ones(len(memory)), rcond=None)
        error = float(((design @ solution - 1) ** 2).sum()) if solution[1] > 0 else math.inf
        errors.append(error)
    excess = np.array(errors) - min(errors)
    if not np.isfinite(excess).any():
        return np.ones(len(sizes))
    likelihood: Floats = np.exp(-excess / (2 * _MEMORY_SD**2))
    return np.maximum(likelihood, _MIN_LIKELIHOOD)
