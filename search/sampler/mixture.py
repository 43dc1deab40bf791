"""Quantiles of mixtures of normal distributions. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.special

from search.sampler.features import Floats

#: Halvings of an interval of 18 standard deviations: its width is then below 1e-10 of one.
_HALVINGS = 40


def mixture_quantiles(
    means: Floats, sds: Floats, shares: Floats, probabilities: Sequence[float]
) -> Floats:
    """Return quantiles by bisection, shape (probabilities, points).

    Args:
        means, sds: of each component, shape (components, points).
        shares: of the components; they sum up to 1.
    """
    found = []
    for probability in probabilities:
        low, high = (means - 9 * sds).min(axis=0), (means + 9 * sds).max(axis=0)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            below = shares @ scipy.special.ndtr((middle - means) / sds) < probability
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        found.append((low + high) / 2)
    return np.array(found)
