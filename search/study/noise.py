"""The noise of repeated measurements: its variance, its correlation, its history. Pure.

All rates are compared by their logarithms: noise is relative, and ratios become differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

#: Significance at which a common change of a round's measurements is taken to be real.
_CORRELATED = 0.05
#: A prior counts at most as this many degrees of freedom for each run, and at most so many in all.
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


@dataclass(frozen=True)
class LinearFit:
    """A least-squares fit of logarithms: one effect for each configuration, and perhaps round.

    Args:
        by_round: whether everything that was measured in a round shares an effect.
    """

    visits: tuple[Visit, ...]
    by_round: bool

    @cached_property
    def indices(self) -> list[int]:
        """The configurations that were measured."""
        return sorted({visit.index for visit in self.visits})

    @cached_property
    def _design(self) -> npt.NDArray[np.float64]:
        indices = np.array([visit.index for visit in self.visits])
        columns = [indices == index for index in self.indices]
        if self.by_round:
            rounds = np.array([visit.round for visit in self.visits])
            columns += [rounds == number for number in np.unique(rounds)[1:]]
        return np.stack(columns, axis=1).astype(float)

    @cached_property
    def _covariance(self) -> npt.NDArray[np.float64]:
        """The effects' covariance ÷ the variance of a visit."""
        design = self._design
        inverse: npt.NDArray[np.float64] = np.linalg.pinv(design.T @ design)
        return inverse

    @cached_property
    def _effects(self) -> npt.NDArray[np.float64]:
        logs = np.array([visit.log_rate for visit in self.visits])
        effects: npt.NDArray[np.float64] = self._covariance @ self._design.T @ logs
        return effects

    @cached_property
    def dof(self) -> int:
        """Degrees of freedom of the residuals."""
        return len(self.visits) - int(np.linalg.matrix_rank(self._design))

    @cached_property
    def residuals(self) -> npt.NDArray[np.float64]:
        """What the effects do not explain, by visit."""
        logs = np.array([visit.log_rate for visit in self.visits])
        rest: npt.NDArray[np.float64] = logs - self._design @ self._effects
        return rest

    @cached_property
    def variance(self) -> Variance:
        """The variance of the residuals."""
        squares = float(self.residuals @ self.residuals)
        return Variance(squares / self.dof if self.dof else 0.0, self.dof)

    def difference(self, index: int, other: int) -> tuple[float, float]:
        """Return the difference of two effects, and its variance ÷ the variance of a visit."""
        i, j = self.indices.index(index), self.indices.index(other)
        covariance = self._covariance
        factor = covariance[i, i] + covariance[j, j] - 2 * covariance[i, j]
        return float(self._effects[i] - self._effects[j]), float(factor)


def are_correlated(visits: Sequence[Visit]) -> bool:
    """Return whether the measurements of a round change together, significantly.

    An F test of the effects of rounds in a two-way layout. If they do, differences within rounds
    are more precise than differences of means; otherwise less, for want of degrees of freedom.
    """
    if not visits:
        return False
    apart, together = (LinearFit(tuple(visits), by_round) for by_round in (False, True))
    dof = apart.dof - together.dof
    if dof < 1 or together.dof < 2:
        return False
    unexplained = float(together.residuals @ together.residuals)
    explained = float(apart.residuals @ apart.residuals) - unexplained
    if unexplained <= 0:
        return explained > 0
    statistic = (explained / dof) / (unexplained / together.dof)
    return float(stats.f.sf(statistic, dof, together.dof)) < _CORRELATED


def moderated(own: Variance, shared: Variance) -> Variance:
    """Return the variance of a configuration that may be noisier or steadier than the others."""
    return own.pooled(shared.limited(_SHARED_DOF))
