"""The race of a confirmation: which configurations its next round measures, and who leads. Pure.

The decisions depend on the measurements alone, so that a resumed run repeats them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from scipy import stats

from search.study.intervals import CONFIDENCE, Interval, log_interval
from search.study.noise import LinearFit, Variance, Visit, are_correlated, moderated
from search.study.sequential import critical_value

#: Index of the configuration that the others are compared with.
REFERENCE = 0


@dataclass(frozen=True)
class RaceRules:
    """The rules of a race.

    Attributes:
        rounds: most rounds.
        min_rounds: rounds before a configuration can be dropped.
        selection_rounds: rounds that choose the leader; the later ones estimate its rate. With
            few rounds, half of them.
        behind: pooled standard errors behind the leader at which one of three or more
            configurations is dropped. The last two are compared by a sequential test, so that
            their difference is shown or not.
        far_behind: a reference below this share of the leader's rate is measured less often.
        reference_every: rounds between two measurements of such a reference.
        precision: half the relative width of its intervals at which a race ends.
        estimating_rounds: least rounds after the choice of the leader before that.
    """

    rounds: int
    min_rounds: int = 3
    selection_rounds: int = 5
    behind: float = 2.0
    far_behind: float = 0.7
    reference_every: int = 4
    precision: float = 0.025
    estimating_rounds: int = 4

    @property
    def last_selection_round(self) -> int:
        """The round after which a leader is chosen in any case, from 1."""
        return max(1, min(self.selection_rounds, self.rounds // 2))


@dataclass
class Race:
    """Interleaved visits of a reference, with index 0, and of the finalists, from 1.

    Args:
        count: number of configurations with the reference.
        prior: what earlier runs on the host say about the variance of a visit.
        reference_share: rate of the reference ÷ that of the best, in the search.

    Attributes:
        rounds: number of complete rounds.
        alive: the finalists that are still measured.
        dropped: after how many rounds a finalist was dropped.
        leader: the finalist chosen, or the reference without any finalist; None until then.
        selected_in: number of rounds that chose the leader.
    """

    count: int
    rules: RaceRules
    prior: Variance | None = None
    reference_share: float | None = None
    rounds: int = 0
    leader: int | None = None
    selected_in: int = 0
    dropped: dict[int, int] = field(default_factory=dict)
    visits: list[Visit] = field(default_factory=list)
    failures: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.alive = list(range(1, self.count))
        if len(self.alive) < 2:
            self.leader = self.alive[0] if self.alive else REFERENCE
        self._refit()

    @property
    def candidates(self) -> list[int]:
        """The finalists, or the reference without any."""
        return list(range(1, self.count)) or [REFERENCE]

    # --- the schedule ----------------------------------------------------------------

    def due(self) -> list[int]:
        """Return what the next round measures, in order; nothing if the race is over.

        Every second round runs backwards, so that a drift of the host favours nobody.
        """
        is_hopeless = self.rounds >= 2 and not any(self.count_of(i) for i in self.candidates)
        if self.rounds >= self.rules.rounds or is_hopeless or self._is_precise():
            return []
        measured = [REFERENCE] * self._is_reference_due() + self.alive
        return measured if self.rounds % 2 == 0 else measured[::-1]

    def record(self, rates: Mapping[int, float | None]) -> None:
        """Add a complete round.

        Args:
            rates: requests/s by configuration; 0 for a failure, None for a visit that shows
                nothing about its configuration.
        """
        for index, rate in sorted(rates.items()):
            if rate:
                self.visits.append(Visit(index, self.rounds, math.log(rate)))
            elif rate is not None:
                self.failures[index] = self.failures.get(index, 0) + 1
        self.rounds += 1
        self._refit()
        self._drop_failing()
        if self.leader is None:
            self._select()
        if self.leader is not None and self.alive:
            self._compare_with_leader()

    def _is_reference_due(self) -> bool:
        if self.rounds < 2:
            return True
        if not self.count_of(REFERENCE):
            return False  # It does not serve.
        is_cadence = self.rounds % self.rules.reference_every == 0
        return is_cadence or not self.is_reference_far_behind

    @property
    def is_reference_far_behind(self) -> bool:
        """Whether the reference needs no precise rate to be known as the slower one."""
        best = self.best()
        if best == REFERENCE:
            return False
        if self.count_of(REFERENCE) and self.count_of(best):
            return math.exp(self.difference(REFERENCE, best)[0]) < self.rules.far_behind
        return self.reference_share is not None and self.reference_share < self.rules.far_behind

    def _is_precise(self) -> bool:
        """Return whether every interval of the result is narrow enough."""
        if self.leader is None or self.rounds < self.rules.min_rounds:
            return False
        if self.rounds - self.selected_in < self.rules.estimating_rounds:
            return False
        leader = self.leader
        intervals = [self.comparison(other, leader) for other in self.alive if other != leader]
        if leader != REFERENCE and self.count_of(REFERENCE):
            intervals.append(self.ratio_to_reference(leader))
        if not intervals:
            intervals.append(self.mean(leader))
        return all(i is not None and i.half_width <= self.rules.precision for i in intervals)

    # --- the race --------------------------------------------------------------------

    def _drop(self, index: int) -> None:
        self.alive.remove(index)
        self.dropped[index] = self.rounds

    def _drop_failing(self) -> None:
        """Drop who failed more often than another: the rates are those at 100 % success."""
        fewest = min((self.failures.get(i, 0) for i in self.alive), default=0)
        for index in list(self.alive):
            if self.failures.get(index, 0) > fewest:
                self._drop(index)
                if self.leader == index:
                    self.leader = None

    def _select(self) -> None:
        """Drop who is behind; choose the leader when one is left or its rounds are over."""
        best = self.best()
        if self.rounds >= self.rules.min_rounds and self.count_of(best):
            self._drop_far_behind(best)
        is_decided = len(self.alive) == 1
        if is_decided or self.rounds >= self.rules.last_selection_round:
            self.leader, self.selected_in = best, self.rounds

    def _drop_far_behind(self, best: int) -> None:
        """Drop the slowest while more than two are left and it is behind; see `RaceRules`."""
        by_rate = sorted(self.alive, key=lambda i: self._rank(i, best))
        for index in by_rate:
            if len(self.alive) > 2 and index != best and self._is_behind(index, best):
                self._drop(index)
        self._drop_shown_slower(best)

    def _is_behind(self, index: int, best: int) -> bool:
        if not self.count_of(index):
            return False
        behind, error, dof = self.difference(best, index)
        # With few degrees of freedom, a standard error is worth less.
        errors = stats.t.isf(stats.norm.sf(self.rules.behind), dof) if dof > 0 else math.inf
        return bool(behind > errors * error)

    def _drop_shown_slower(self, best: int) -> None:
        for index in list(self.alive):
            interval = self._compare(index, best, is_last=False)
            if index != best and interval is not None and interval.high < 1:
                self._drop(index)

    def _compare_with_leader(self) -> None:
        """Drop who is behind the leader; replace a leader that is shown to be slower."""
        assert self.leader is not None
        best = self.best()
        interval = self._compare(best, self.leader, is_last=False)
        if interval is not None and best in self.alive and interval.low > 1:
            self.leader = best
        if self.rounds >= self.rules.min_rounds:
            self._drop_far_behind(self.leader)

    def best(self) -> int:
        """Return the finalist with the fewest failures, then the highest mean rate."""
        if not self.alive:
            return self.leader if self.leader is not None else REFERENCE
        first = self.alive[0]
        return max(self.alive, key=lambda i: (-self.failures.get(i, 0), self._rank(i, first)))

    def _rank(self, index: int, other: int) -> float:
        if not self.count_of(index):
            return -math.inf
        if not self.count_of(other):
            return self._level(index)
        return self.difference(index, other)[0] + self._level(other)

    # --- estimates -------------------------------------------------------------------

    def _refit(self) -> None:
        """Fit the variances; they are used until the next round."""
        every = tuple(self.visits)
        finalists = tuple(v for v in every if v.index != REFERENCE or self.count == 1)
        reference = tuple(v for v in every if v.index == REFERENCE)
        self.is_paired = are_correlated(every)
        self._together = LinearFit(every, by_round=True) if self.is_paired else None
        self.own_variance = _variance(finalists)
        self.variance = self.own_variance.pooled(self.prior)
        self.reference_variance = self.variance
        if self.count > 1:
            self.reference_variance = moderated(_variance(reference), self.variance)

    def count_of(self, index: int, first_round: int = 0) -> int:
        """Return the number of a configuration's visits with a rate, from this round on."""
        return len(self._logs(index, first_round))

    def _logs(self, index: int, first_round: int = 0) -> list[float]:
        return [v.log_rate for v in self.visits if v.index == index and v.round >= first_round]

    def _level(self, index: int, first_round: int = 0) -> float:
        logs = self._logs(index, first_round)
        return sum(logs) / len(logs)

    def difference(
        self, index: int, other: int, first_round: int = 0
    ) -> tuple[float, float, float]:
        """Return the difference of two log rates, its standard error and degrees of freedom.

        Both must have been measured. Within rounds if the run shows a correlation, otherwise
        Welch's; the finalists share their variance.

        Args:
            first_round: visits of `index` before this round do not count. Within rounds, neither
                do the others'.
        """
        if self.is_paired and self._together is not None:
            late = tuple(v for v in self.visits if v.round >= first_round)
            rounds = [{v.round for v in late if v.index == i} for i in (index, other)]
            if len(rounds[0] & rounds[1]) > 1:
                fit = LinearFit(late, by_round=True) if first_round else self._together
                difference, factor = fit.difference(index, other)
                variance = self._together.variance
                return difference, math.sqrt(factor * variance.value), variance.dof
        ours, theirs = self._logs(index, first_round), self._logs(other)
        difference = sum(ours) / len(ours) - sum(theirs) / len(theirs)
        variances = [self._variance_of(i) for i in (index, other)]
        parts = [v.value / len(n) for v, n in zip(variances, (ours, theirs), strict=True)]
        error = math.sqrt(sum(parts))
        if REFERENCE not in (index, other) or not error:
            return difference, error, self.variance.dof
        squares = sum(p**2 / v.dof for p, v in zip(parts, variances, strict=True) if v.dof)
        return difference, error, error**4 / squares if squares else 0.0

    def _variance_of(self, index: int) -> Variance:
        return self.reference_variance if index == REFERENCE else self.variance

    def comparison(self, index: int, other: int) -> Interval | None:
        """Return the ratio of two finalists' rates, from all rounds; None if unknown.

        The interval holds for all finalists together, and although the race looked at it after
        every round; see `critical_value`.
        """
        return self._compare(index, other, is_last=not self.dropped.keys() & {index, other})

    def _compare(self, index: int, other: int, is_last: bool) -> Interval | None:
        """Return the ratio of two rates; more rounds may follow unless it is the last look."""
        if index == other or not (self.count_of(index) and self.count_of(other)):
            return None
        difference, error, dof = self.difference(index, other)
        look = min(self.dropped.get(i, self.rounds) for i in (index, other))
        looks = look if is_last else self.rules.rounds
        critical = critical_value(dof, self.count - 1, look, looks)
        return log_interval(difference, critical * error) if math.isfinite(critical) else None

    def ratio_to_reference(self, index: int) -> Interval | None:
        """Return the ratio of a finalist's rate to the reference's; None if unknown.

        The visits that chose the leader do not count.
        """
        first = self._first_round(index)
        if index == REFERENCE or not self.count_of(REFERENCE) or not self.count_of(index, first):
            return None
        difference, error, dof = self.difference(index, REFERENCE, first)
        if dof <= 0:
            return None
        return log_interval(difference, float(stats.t.ppf(0.5 + CONFIDENCE / 2, dof)) * error)

    def _first_round(self, index: int) -> int:
        """Return the first round that estimates a configuration's rate."""
        return 0 if index == REFERENCE and self.count > 1 else self.estimating_from

    @property
    def estimating_from(self) -> int:
        """The first round that estimates the leader: after those that chose it.

        If none is left, the first of all.
        """
        if self.leader is None or not self.count_of(self.leader, self.selected_in):
            return 0
        return self.selected_in

    @property
    def is_selection_separate(self) -> bool:
        """Whether the leader's rate was estimated in rounds that did not choose it."""
        return self.count <= 2 or self.estimating_from > 0

    def mean_rate(self, index: int) -> float | None:
        """Return the mean rate of a configuration, requests/s; None if unknown."""
        first = self._first_round(index)
        return math.exp(self._level(index, first)) if self.count_of(index, first) else None

    def mean(self, index: int) -> Interval | None:
        """Return the mean rate, requests/s, with its interval; None if unknown."""
        return self._level_interval(index, 0.0)

    def prediction(self, index: int) -> Interval | None:
        """Return the mean rate, requests/s, with the interval of one more visit."""
        return self._level_interval(index, 1.0)

    def _level_interval(self, index: int, more: float) -> Interval | None:
        first = self._first_round(index)
        count, variance = self.count_of(index, first), self._variance_of(index)
        if not count or variance.dof <= 0:
            return None
        error = math.sqrt(variance.value * (more + 1 / count))
        t = float(stats.t.ppf(0.5 + CONFIDENCE / 2, variance.dof))
        return log_interval(self._level(index, first), t * error)


def _variance(visits: tuple[Visit, ...]) -> Variance:
    """Return the variance within configurations."""
    return LinearFit(visits, by_round=False).variance if visits else Variance(0.0, 0)
