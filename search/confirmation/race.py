"""The race of a confirmation: what its next round visits, and which finalist leads. Pure.

The decisions depend on the visits alone, so that a resumed run repeats them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from scipy import special

from search.confirmation.estimates import REFERENCE, Estimates
from search.confirmation.noise import Variance
from search.confirmation.rounds import measurement_order
from search.confirmation.sequential import critical_value, final_critical_value
from search.intervals import Interval, log_interval


@dataclass(frozen=True)
class RaceRules:
    """The rules of a race.

    Attributes:
        rounds: maximum number of rounds.
        min_rounds: rounds before one of several finalists can be dropped.
        selection_rounds: rounds that choose the leader; the later ones estimate its rate. With
            few rounds, half of them.
        behind: standard errors behind the leader at which one of three or more finalists is
            dropped. The last two are compared by a sequential test, so that a difference is
            shown or not.
        far_behind: a reference below this share of the leader's rate is visited less often.
        reference_every: rounds between two visits to such a reference, after those in the first
            and the third round.
        precision: half the relative width of its intervals at which a race ends.
        estimating_rounds: minimum number of rounds after the choice of the leader.
    """

    rounds: int
    min_rounds: int = 3
    selection_rounds: int = 5
    behind: float = 2.0
    far_behind: float = 0.7
    reference_every: int = 6
    precision: float = 0.025
    estimating_rounds: int = 6

    @property
    def last_selection_round(self) -> int:
        """The round after which a leader is chosen in any case, from 1."""
        return max(1, min(self.selection_rounds, self.rounds // 2))


@dataclass(frozen=True)
class Drop:
    """Why a finalist is no longer visited.

    Attributes:
        rounds: number of rounds before that.
        best: the finalist that it was compared with; None if it failed.
        shown: the ratio of its rate to that of `best`, if the sequential test shows a difference.
    """

    rounds: int
    best: int | None = None
    shown: Interval | None = None


class Race:
    """Interleaved visits to a reference, with index 0, and to the finalists, from 1.

    Args:
        count: number of configurations with the reference.
        prior: what earlier runs on the host say about the variance of a visit.
        reference_share: rate of the reference ÷ that of the best finalist, in the search.

    Attributes:
        rounds: number of complete rounds.
        alive: the finalists that are still visited.
        dropped: the finalists that are no longer visited, by index.
        leader: the chosen finalist, or the reference without any finalist; None until then.
        selected_in: number of rounds that chose the leader.
    """

    def __init__(
        self,
        count: int,
        rules: RaceRules,
        prior: Variance | None = None,
        reference_share: float | None = None,
    ):
        self.rules, self.estimates = rules, Estimates(count, prior)
        self.rounds, self.selected_in = 0, 0
        self.finalists = list(range(1, count))
        self.alive, self.dropped = list(self.finalists), dict[int, Drop]()
        self._reference_share = reference_share
        self.leader: int | None = None
        if len(self.finalists) < 2:
            # With one finalist there is no choice, and every round estimates its rate.
            self.leader = self.finalists[0] if self.finalists else REFERENCE

    # --- the schedule ----------------------------------------------------------------

    def due(self) -> list[int]:
        """Return what the next round visits, in order; nothing if the race is over."""
        estimates = self.estimates
        served = [i for i in self.finalists or [REFERENCE] if estimates.visit_count(i)]
        if self.rounds >= self.rules.rounds or (self.rounds >= 2 and not served):
            return []
        if self._is_precise():
            return []
        visited = [REFERENCE] * self._is_reference_due() + self.alive
        return measurement_order(self.rounds, visited)

    def record(
        self,
        rates: Mapping[int, float | None],
        errors: Mapping[int, float] = MappingProxyType({}),
    ) -> None:
        """Add a complete round; see `Estimates.add_round`."""
        self.estimates.add_round(self.rounds, rates, errors)
        self.rounds += 1
        self._drop_failing()
        if self.leader is None:
            self._select()
        elif self.alive:
            self._compare_with_leader()

    def _is_reference_due(self) -> bool:
        if self.rounds >= 2 and not self.estimates.visit_count(REFERENCE):
            return False  # It does not serve.
        is_cadence = self.rounds == 2 or self.rounds % self.rules.reference_every == 0
        return is_cadence or not self._is_reference_far_behind()

    def _is_reference_far_behind(self) -> bool:
        best = self.best()
        if best == REFERENCE:
            return False
        if self.estimates.visit_count(REFERENCE) and self.estimates.visit_count(best):
            behind = self.estimates.difference(REFERENCE, best)[0]
            return math.exp(behind) < self.rules.far_behind
        return self._reference_share is not None and self._reference_share < self.rules.far_behind

    def _is_precise(self) -> bool:
        """Return whether every interval of the result is narrow enough."""
        leader = self.leader
        if leader is None or self.rounds - self.selected_in < self.rules.estimating_rounds:
            return False
        intervals = [self.comparison(other, leader) for other in self.alive if other != leader]
        if leader != REFERENCE and self.estimates.visit_count(REFERENCE):
            intervals.append(self.ratio_to_reference(leader))
        if not intervals:
            intervals.append(self.estimates.mean(leader, self.first_round(leader)))
        return all(i is not None and i.half_width <= self.rules.precision for i in intervals)

    # --- the choice ------------------------------------------------------------------

    def best(self) -> int:
        """Return the leader, or before its choice the finalist with the highest rate so far.

        A finalist with fewer failures is better in any case.
        """
        if self.leader is not None:
            return self.leader
        return self._fastest() if self.alive else REFERENCE

    def _fastest(self) -> int:
        failures = self.estimates.failures
        first = self.alive[0]
        return max(self.alive, key=lambda i: (-failures.get(i, 0), self._position(i, first)))

    def order(self) -> list[int]:
        """Return the visited finalists, best first: by failures, then by rate."""
        visited = [i for i in self.finalists if self.estimates.visit_count(i)]
        failures, origin = self.estimates.failures, next(iter(visited), REFERENCE)
        return sorted(visited, key=lambda i: (failures.get(i, 0), -self._position(i, origin)))

    def _position(self, index: int, origin: int) -> float:
        """Return a log rate relative to that of `origin`; −∞ without a visit."""
        estimates = self.estimates
        if not estimates.visit_count(index):
            return -math.inf
        if not estimates.visit_count(origin):
            return estimates.log_mean(index)
        return estimates.difference(index, origin)[0]

    def _drop(self, index: int, best: int | None = None, shown: Interval | None = None) -> None:
        self.alive.remove(index)
        self.dropped[index] = Drop(self.rounds, best, shown)
        if self.leader == index:
            self.leader = None

    def _drop_failing(self) -> None:
        """Drop each finalist that failed more often than another: no request may fail."""
        failures = self.estimates.failures
        fewest = min((failures.get(i, 0) for i in self.alive), default=0)
        for index in list(self.alive):
            if failures.get(index, 0) > fewest:
                self._drop(index)

    def _select(self) -> None:
        """Drop each finalist that is behind; choose the leader when that is decided."""
        best = self._fastest()
        if self.rounds >= self.rules.min_rounds:
            self._drop_behind(best)
        if len(self.alive) == 1 or self.rounds >= self.rules.last_selection_round:
            self.leader, self.selected_in = best, self.rounds

    def _compare_with_leader(self) -> None:
        """Replace a leader that is shown to be slower; drop each finalist that is behind."""
        assert self.leader is not None
        fastest = self._fastest()
        interval = self._compare(fastest, self.leader)
        if interval is not None and interval.low > 1:
            self.leader = fastest
        if self.rounds >= self.rules.min_rounds:
            self._drop_behind(self.leader)

    def _drop_behind(self, best: int) -> None:
        """Drop what is behind while more than two are left, and what is shown to be slower."""
        for index in sorted(self.alive, key=lambda i: self._position(i, best)):
            if len(self.alive) > 2 and index != best and self._is_behind(index, best):
                self._drop(index, best)
        for index in list(self.alive):
            interval = self._compare(index, best)
            if interval is not None and interval.high < 1:
                self._drop(index, best, interval)

    def _is_behind(self, index: int, best: int) -> bool:
        if not (self.estimates.visit_count(index) and self.estimates.visit_count(best)):
            return False
        behind, error, dof = self.estimates.difference(best, index)
        if dof <= 0:
            return False
        # The same probability as for a normal distribution, with few degrees of freedom too.
        errors = special.stdtrit(dof, special.ndtr(self.rules.behind))
        return bool(behind > errors * error)

    # --- results ---------------------------------------------------------------------

    def comparison(self, index: int, other: int) -> Interval | None:
        """Return the ratio of two finalists' rates, from all rounds; None if unknown.

        For those that are still visited, and for those that were shown to differ, the interval
        holds for all finalists together and although the race compared them after every round;
        see `critical_value`. Otherwise it holds for this pair alone.
        """
        drop = self.dropped.get(index)
        if drop is not None and drop.shown is not None and drop.best == other:
            return drop.shown  # As it was shown: later visits to `best` do not revoke it.
        if self.dropped.keys() & {index, other}:
            return self.estimates.ratio(index, other) if index != other else None
        return self._compare(index, other, is_last=True)

    def _compare(self, index: int, other: int, is_last: bool = False) -> Interval | None:
        """Return the ratio of two rates, which is compared after every round.

        Args:
            is_last: whether no round follows.
        """
        counts = [self.estimates.visit_count(i) for i in (index, other)]
        if index == other or not all(counts):
            return None
        difference, error, dof = self.estimates.difference(index, other)
        value_of = final_critical_value if is_last else critical_value
        critical = value_of(dof, len(self.finalists), self.rounds, self.rules.rounds)
        return log_interval(difference, critical * error) if math.isfinite(critical) else None

    def ratio_to_reference(self, index: int) -> Interval | None:
        """Return the ratio of a finalist's rate to the reference's; None if unknown.

        The visits that chose the leader do not count.
        """
        if index == REFERENCE:
            return None
        return self.estimates.ratio(index, REFERENCE, self.first_round(index))

    def mean_rate(self, index: int) -> float | None:
        """Return the mean rate of a configuration, requests/s; None if unknown."""
        first = self.first_round(index)
        if not self.estimates.visit_count(index, first):
            return None
        return math.exp(self.estimates.log_mean(index, first))

    def prediction(self, index: int) -> Interval | None:
        """Return the mean rate, requests/s, with the interval of one more visit."""
        return self.estimates.prediction(index, self.first_round(index))

    def first_round(self, index: int) -> int:
        """Return the first round that estimates a configuration's rate.

        For a finalist the one after those that chose the leader, unless too few followed.
        """
        if index == REFERENCE or self.leader is None:
            return 0
        followed = self.estimates.visit_count(index, self.selected_in)
        return self.selected_in if followed >= self.rules.min_rounds else 0

    @property
    def is_selection_separate(self) -> bool:
        """Whether the leader's rate was estimated in rounds that did not choose it."""
        return len(self.finalists) < 2 or self.first_round(self.best()) > 0
