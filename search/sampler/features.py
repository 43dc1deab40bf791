"""Points of a search space as arrays. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from search.sampler.observations import Point
from search.spec.dimension import Dimension
from search.spec.space import Space

Floats = npt.NDArray[np.float64]


class Features:
    """Points as arrays.

    Attributes:
        unit: coordinates, shape (features, points). 0 to 1 between the bounds of a range, on a
            logarithmic scale; a value outside of the bounds is outside of 0 to 1. Choices that are
            numbers have one coordinate, others one for each choice but the first.
        names: the dimension of each feature.
        workers, batch, threads, netty, client: settings, TorchServe's default if unset; at least 1.
        cores: of the serving host.
    """

    def __init__(self, space: Space, points: Sequence[Point]):
        self.cores = space.cores
        columns: list[Floats] = []
        self.names: list[str] = []
        for d in space.dimensions:
            added = _coordinates(d, [point[d.name] for point in points])
            columns += added
            self.names += [d.name] * len(added)
        self.unit = np.array(columns).reshape(len(columns), len(points))
        defaults = space.defaults

        def setting(name: str) -> Floats:
            fixed = getattr(space.common, name, None) or defaults[name]
            values = np.array([point.get(name, fixed) for point in points], float)
            return np.asarray(np.maximum(values, 1.0), float)

        self.workers, self.batch = setting("workers"), setting("batch_size")
        self.threads = setting("mkl_threads")
        self.netty, self.client = setting("netty_threads"), setting("netty_client_threads")


def _coordinates(d: Dimension, values: Sequence[Any]) -> list[Floats]:
    """Return the coordinates of a dimension's values, one array for each feature."""
    is_numeric = not d.choices or all(
        isinstance(choice, int | float) and not isinstance(choice, bool) for choice in d.choices
    )
    if not is_numeric:
        return [np.array([float(v == c) for v in values]) for c in d.choices[1:]]
    low, high = (min(d.choices), max(d.choices)) if d.choices else (d.low, d.high)
    # asinh is logarithmic far from 0, and defined everywhere.
    scale = np.log if low > 0 else np.arcsinh
    numbers = np.array(values, float)
    if low > 0:
        numbers = np.maximum(numbers, low / 2)
    span = float(scale(high) - scale(low)) or 1.0
    return [np.asarray((scale(numbers) - scale(low)) / span, float)]


def log2_settings(features: Features) -> Floats:
    """Return log₂ of workers, batch and threads, shape (3, points)."""
    settings: Floats = np.log2(np.array([features.workers, features.batch, features.threads]))
    return settings


def log_sizes(features: Features, ratios: Floats) -> Floats:
    """Return the log of workers × (1 + ratio × batch), shape (ratios, points)."""
    sizes: Floats = np.log(features.workers * (1 + ratios[:, None] * features.batch))
    return sizes


def squared_distances(a: Floats, b: Floats) -> Floats:
    """Return the squared distances by feature, shape (features, points of a, points of b)."""
    distances: Floats = (a[:, :, None] - b[:, None, :]) ** 2
    return distances
