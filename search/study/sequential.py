"""Critical values for comparisons that are repeated while measurements go on. Pure."""

from __future__ import annotations

import numpy as np

from search.study.intervals import CONFIDENCE, t_quantile

#: Critical value at the last look by the number of looks: O'Brien and Fleming's test at 5 %,
#: two-sided.
#: Jennison and Turnbull (2000), "Group Sequential Methods", table 2.3.
_LAST_LOOK = {
    **{1: 1.960, 2: 1.977, 3: 2.004, 4: 2.024, 5: 2.040, 6: 2.053, 7: 2.063, 8: 2.072},
    **{9: 2.080, 10: 2.087, 11: 2.092, 12: 2.098, 15: 2.110, 20: 2.126, 30: 2.145},
    **{50: 2.164, 10_000: 2.241},
}
_LOOKS = np.log(list(_LAST_LOOK))


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
    if dof <= 0:
        return float("inf")
    # Any of the pairs may turn out to be the one that is reported.
    pairs = max(count * (count - 1) // 2, 1)
    single = t_quantile(dof, CONFIDENCE ** (1 / pairs))
    last = np.interp(np.log(looks), _LOOKS, list(_LAST_LOOK.values())) / _LAST_LOOK[1]
    return single * float(last * (looks / min(look, looks)) ** 0.5)
