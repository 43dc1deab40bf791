"""What the visits of a confirmation show: rates, ratios and their intervals. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from search.confirmation.noise import (
    TwoWayFit,
    Variance,
    Visit,
    fit_of_correlated,
    moderated,
    variance_within,
)
from search.intervals import Interval, log_interval, t_quantile

#: Index of the configuration that the others are compared with; the finalists follow.
REFERENCE = 0


class Estimates:
    """The visits to a reference, with index 0, and to the finalists, from 1.

    The finalists have a common variance, with the prior. That of the reference may differ: the
    common one counts a little for it, and it is at least what its visits show by themselves. If the
    rates of a round change together, ratios are formed within rounds, otherwise from means.

    Args:
        count: number of configurations with the reference.
        prior: what earlier runs on the host say about the variance of a visit.

    Attributes:
        failures: visits in which the server failed, by index.
        own_variance: of the finalists, without the prior.
        variance: the same with the prior.
        reference_variance: of the reference.
    """

    def __init__(self, count: int, prior: Variance | None = None):
        self.count, self._prior = count, prior
        self.failures: dict[int, int] = {}
        self._visits: list[Visit] = []
        self._logs: dict[int, list[tuple[int, float]]] = {index: [] for index in range(count)}
        self._reference_errors: list[float] = []
        self._fit_variances()

    def add_round(
        self,
        number: int,
        rates: Mapping[int, float | None],
        errors: Mapping[int, float] = MappingProxyType({}),
    ) -> None:
        """Add the visits of a round.

        Args:
            rates: requests/s by index; 0 for a failure, None for a visit that shows nothing
                about its configuration.
            errors: standard errors of the rates' logarithms within a visit, as far as known.
        """
        if REFERENCE in errors and rates.get(REFERENCE):
            self._reference_errors.append(errors[REFERENCE])
        for index, rate in sorted(rates.items()):
            if rate:
                self._visits.append(Visit(index, number, math.log(rate)))
                self._logs[index].append((number, math.log(rate)))
            elif rate is not None:
                self.failures[index] = self.failures.get(index, 0) + 1
        self._fit_variances()

    def _fit_variances(self) -> None:
        finalists = [v for v in self._visits if v.index != REFERENCE or self.count == 1]
        reference = [v for v in self._visits if v.index == REFERENCE]
        self._fit = fit_of_correlated(self._visits)
        self.own_variance = variance_within(finalists)
        self.variance = self.own_variance.pooled(self._prior)
        self.reference_variance = self.variance
        if self.count > 1:
            variance = moderated(variance_within(reference), self.variance)
            value = max(variance.value, self._within_reference)
            self.reference_variance = replace(variance, value=value)

    @property
    def is_reference_unsteady(self) -> bool:
        """Whether the reference's variance is that within its visits."""
        return 0 < self.reference_variance.value <= self._within_reference

    @property
    def _within_reference(self) -> float:
        """The variance within the reference's visits; 0 if it is not known."""
        errors = self._reference_errors
        return sum(error**2 for error in errors) / len(errors) if errors else 0.0

    @property
    def is_paired(self) -> bool:
        """Whether the rates of a round change together, so that ratios are formed within it."""
        return self._fit is not None

    def visit_count(self, index: int, first_round: int = 0) -> int:
        """Return the number of a configuration's visits with a rate, from this round on."""
        return sum(number >= first_round for number, _ in self._logs[index])

    def log_mean(self, index: int, first_round: int = 0) -> float:
        """Return the mean logarithm of a rate; there must be a visit."""
        logs = [log for number, log in self._logs[index] if number >= first_round]
        return sum(logs) / len(logs)

    def difference(
        self, index: int, other: int, first_round: int = 0
    ) -> tuple[float, float, float]:
        """Return the difference of two log rates, its standard error and degrees of freedom.

        Both must have been visited.

        Args:
            first_round: visits of `index` before this round do not count; within rounds, nor do
                those of the others.
        """
        if self._fit is not None:
            rounds = [{n for n, _ in self._logs[i] if n >= first_round} for i in (index, other)]
            if len(rounds[0] & rounds[1]) > 1:
                fit = self._fit
                if first_round:
                    fit = TwoWayFit([v for v in self._visits if v.round >= first_round])
                difference, factor = fit.difference(index, other)
                variance = self._fit.variance
                squares = factor * variance.value
                if REFERENCE in (index, other):
                    excess = max(self._within_reference - variance.value, 0.0)
                    squares += excess / self.visit_count(REFERENCE)
                return difference, math.sqrt(squares), variance.dof
        difference = self.log_mean(index, first_round) - self.log_mean(other)
        variances = [self._variance_of(i) for i in (index, other)]
        counts = self.visit_count(index, first_round), self.visit_count(other)
        parts = [v.value / n for v, n in zip(variances, counts, strict=True)]
        error = math.sqrt(sum(parts))
        if REFERENCE not in (index, other) or not error:
            return difference, error, self.variance.dof
        # Satterthwaite's degrees of freedom of Welch's test.
        squares = sum(p**2 / v.dof for p, v in zip(parts, variances, strict=True) if v.dof)
        return difference, error, error**4 / squares if squares else 0.0

    def _variance_of(self, index: int) -> Variance:
        return self.reference_variance if index == REFERENCE else self.variance

    def ratio(self, index: int, other: int, first_round: int = 0) -> Interval | None:
        """Return the ratio of two rates with its 95 % interval; None if unknown.

        Args:
            first_round: see `difference`.
        """
        if not (self.visit_count(index, first_round) and self.visit_count(other)):
            return None
        difference, error, dof = self.difference(index, other, first_round)
        return log_interval(difference, t_quantile(dof) * error) if dof > 0 else None

    def mean(self, index: int, first_round: int = 0) -> Interval | None:
        """Return the mean rate, requests/s, with its interval; None if unknown."""
        return self._level(index, first_round, 0.0)

    def prediction(self, index: int, first_round: int = 0) -> Interval | None:
        """Return the mean rate, requests/s, with the interval of one more visit."""
        return self._level(index, first_round, 1.0)

    def _level(self, index: int, first_round: int, more: float) -> Interval | None:
        count, variance = self.visit_count(index, first_round), self._variance_of(index)
        if not count or variance.dof <= 0:
            return None
        error = math.sqrt(variance.value * (more + 1 / count))
        return log_interval(self.log_mean(index, first_round), t_quantile(variance.dof) * error)
