"""Critical values for comparisons that are repeated while measurements go on. Pure."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from scipy import optimize, special

from search.intervals import CONFIDENCE, t_quantile

#: Critical value at the last look by the number of looks: O'Brien and Fleming's test at 5 %,
#: two-sided.
#: Jennison and Turnbull (2000), "Group Sequential Methods", table 2.3.
_LAST_LOOK = {
    **{1: 1.960, 2: 1.977, 3: 2.004, 4: 2.024, 5: 2.040, 6: 2.053, 7: 2.063, 8: 2.072},
    **{9: 2.080, 10: 2.087, 11: 2.092, 12: 2.098, 15: 2.110, 20: 2.126, 30: 2.145},
    **{50: 2.164, 10_000: 2.241},
}
_LOOKS = np.log(list(_LAST_LOOK))
#: Points of a numerical integral for each standard deviation of one look.
_POINTS = 8


def critical_value(dof: float, count: int, look: int, looks: int) -> float:
    """Return how many standard errors a difference must exceed to be shown at 5 %.

    Student's t, at Šidák's level for all pairs, times the factor by which O'Brien and Fleming
    widen an interval that is computed after every round: early rounds need much clearer
    differences, and all looks together are wrong in 5 %.

    Args:
        dof: degrees of freedom of the variance.
        count: number of configurations that are compared with each other.
        look: number of the round, from 1.
        looks: the last round.
    """
    widening = math.sqrt(looks / min(look, looks))
    return _single(dof, count) * _last(looks) / _last(1) * widening


def final_critical_value(dof: float, count: int, look: int, looks: int) -> float:
    """Return the critical value of the last comparison, if it comes before the planned one.

    Time usually ends a race early. Its comparisons were those of `critical_value` for more
    looks, and so used up little of the 5 %; the rest is for the last one.

    Args:
        look: number of the last round, from 1.
        looks: the round for which the comparisons were planned.
    """
    return _single(dof, count) * _final(min(look, looks), looks) / _last(1)


def _single(dof: float, count: int) -> float:
    """Return the critical value of a comparison that is made once."""
    if dof <= 0:
        return math.inf
    # Any of the pairs may turn out to be the one that is reported.
    pairs = max(count * (count - 1) // 2, 1)
    return t_quantile(dof, CONFIDENCE ** (1 / pairs))


def _last(looks: int) -> float:
    return float(np.interp(np.log(looks), _LOOKS, list(_LAST_LOOK.values())))


@cache
def _final(look: int, looks: int) -> float:
    """Return the value that a normal deviate at a last look must exceed, after the earlier looks.

    The sum of the looks so far is a random walk between two constant bounds, which are those of
    O'Brien and Fleming (Armitage, McPherson and Rowe, 1969).
    """
    bound = _last(looks) * math.sqrt(looks)
    count = 2 * math.ceil(_POINTS * bound) + 1
    # The middles of equal parts, so that the first and the last part end at the bounds.
    step = 2 * bound / count
    sums = step * (np.arange(count) - count // 2)
    transition = np.exp(-((sums[:, None] - sums) ** 2) / 2) * step / math.sqrt(2 * math.pi)
    inside = np.zeros(count)
    inside[count // 2] = 1.0
    for _ in range(look - 1):
        inside = transition @ inside

    def error(critical: float) -> float:
        limit = critical * math.sqrt(look)
        within = special.ndtr(limit - sums) - special.ndtr(-limit - sums)
        return float(inside @ within) - CONFIDENCE

    return float(optimize.brentq(error, 1.9, 2.3))
