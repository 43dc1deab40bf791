"""The noise of repeated measurements: its variance, its correlation, its history. Pure.

All rates are compared by their logarithms: noise is relative, and ratios become differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

#: Significance at which a common change of a round's measurements is taken to be real.
_CORRELATED = 0.05
#: Maximum degrees of freedom of a prior: for each earlier run, and in all.
_DOF_PER_RUN, _MAX_PRIOR_DOF = 3.0, 20.0
#: Configurations differ in noise: a common variance counts as this many degrees of freedom for a
#: configuration that is not like the others.
_SHARED_DOF = 4.0
#: A variance below this is no noise of a real server: a relative deviation of 0.01 %.
MIN_VARIANCE = 1e-8


@dataclass(frozen=True)
class Variance:
    """An estimate of the variance of a logarithm.

    Attributes:
        value: the variance.
        dof: its degrees of freedom; 0 if nothing is known.
    """

    value: float
    dof: float

    def pooled(self, other: Variance | None) -> Variance:
        """Return the mean of two estimates, weighted by their degrees of freedom."""
        if other is None or not self.dof + other.dof:
            return self
        dof = self.dof + other.dof
        return Variance((self.dof * self.value + other.dof * other.value) / dof, dof)

    def limited(self, dof: float) -> Variance:
        """Return the same variance with at most this many degrees of freedom."""
        return Variance(self.value, min(self.dof, dof))


def prior_of(history: Sequence[Variance]) -> Variance | None:
    """Return what the variances of earlier runs say about that of the next; None without any.

    The method of moments of Smyth (2004), "Linear models and empirical Bayes methods": the more
    the runs' variances differ, the less the prior counts.
    """
    runs = [v for v in history if v.dof > 0 and v.value > MIN_VARIANCE]
    if not runs:
        return None
    half_dofs = np.array([v.dof / 2 for v in runs])
    logs = np.log([v.value for v in runs]) - special.digamma(half_dofs) + np.log(half_dofs)
    mean, most = float(logs.mean()), min(_DOF_PER_RUN * len(runs), _MAX_PRIOR_DOF)
    excess = 0.0
    if len(runs) > 1:
        excess = float(logs.var(ddof=1) - special.polygamma(1, half_dofs).mean())
    half = most / 2
    if excess > special.polygamma(1, half):
        half = optimize.brentq(lambda x: special.polygamma(1, x) - excess, 1e-3, half)
    # Of a prior that counts so little, the variance is the typical one.
    return Variance(float(np.exp(mean + special.digamma(half) - np.log(half))), 2 * half)


@dataclass(frozen=True)
class Visit:
    """A short measurement of a configuration: its index, its round, the logarithm of its rate."""

    index: int
    round: int
    log_rate: float


def variance_within(visits: Sequence[Visit]) -> Variance:
    """Return the variance within configurations, common to all of them."""
    logs_of: dict[int, list[float]] = {}
    for visit in visits:
        logs_of.setdefault(visit.index, []).append(visit.log_rate)
    dof = len(visits) - len(logs_of)
    if dof < 1:
        return Variance(0.0, 0)
    squares = 0.0
    for logs in logs_of.values():
        mean = sum(logs) / len(logs)
        squares += sum((log - mean) ** 2 for log in logs)
    return Variance(squares / dof, dof)


class TwoWayFit:
    """A least-squares fit of logarithms: an effect for each configuration and for each round.

    Attributes:
        variance: of the residuals.
    """

    def __init__(self, visits: Sequence[Visit]):
        self._indices = sorted({visit.index for visit in visits})
        indices = np.array([visit.index for visit in visits])
        rounds = np.array([visit.round for visit in visits])
        columns = [indices == index for index in self._indices]
        columns += [rounds == number for number in sorted(set(rounds.tolist()))[1:]]
        self._design = np.stack(columns, axis=1).astype(float)
        logs = np.array([visit.log_rate for visit in visits])
        self._effects, _, rank, _ = np.linalg.lstsq(self._design, logs)
        residuals = logs - self._design @ self._effects
        dof = len(visits) - int(rank)
        self.variance = Variance(float(residuals @ residuals) / dof if dof else 0.0, dof)

    @cached_property
    def _covariance(self) -> npt.NDArray[np.float64]:
        """The effects' covariance ÷ the variance of a visit."""
        inverse: npt.NDArray[np.float64] = np.linalg.pinv(self._design.T @ self._design)
        return inverse

    def difference(self, index: int, other: int) -> tuple[float, float]:
        """Return the difference of two effects, and its variance ÷ the variance of a visit."""
        i, j = self._indices.index(index), self._indices.index(other)
        covariance = self._covariance
        factor = covariance[i, i] + covariance[j, j] - 2 * covariance[i, j]
        return float(self._effects[i] - self._effects[j]), float(factor)


def fit_of_correlated(visits: Sequence[Visit]) -> TwoWayFit | None:
    """Return a fit by rounds if the measurements of a round change together, else None.

    An F test of the effects of rounds. If they do, differences within rounds are more precise
    than differences of means; otherwise less, for want of degrees of freedom.
    """
    apart = variance_within(visits)
    # Each round of two visits or more adds information about its effect.
    if apart.dof < 3:
        return None
    fit = TwoWayFit(visits)
    dof, together = apart.dof - fit.variance.dof, fit.variance
    if dof < 1 or together.dof < 2:
        return None
    explained = (apart.value * apart.dof - together.value * together.dof) / dof
    if together.value <= 0:
        return fit if explained > 0 else None
    chance = special.fdtrc(dof, together.dof, max(explained / together.value, 0.0))
    return fit if chance < _CORRELATED else None


def moderated(own: Variance, shared: Variance) -> Variance:
    """Return the variance of a configuration that may be noisier or steadier than the others."""
    return own.pooled(shared.limited(_SHARED_DOF))
