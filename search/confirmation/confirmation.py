"""What the measurements of a confirmation show. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from search.confirmation.estimates import REFERENCE, Estimates
from search.confirmation.noise import Variance
from search.confirmation.plan import VERIFICATION, Plan
from search.confirmation.race import Drop, Race, RaceRules
from search.confirmation.visits import StoredVisits, visit_errors, visit_rps, visit_score
from search.intervals import Interval
from search.trial.objective import Figures, Shortfall, workers_of
from search.trial.result import TrialResult

#: A configuration with a lower latency wins only with at least this share of the leader's rate.
MIN_SHARE_OF_LEADER = 0.95
#: Figures of tied finalists that differ by no more than this share do not decide: a window shows
#: its p99 latency to about 10 %.
SAME_FIGURE = 0.1


@dataclass(frozen=True)
class Comparison:
    """A finalist compared with the winner.

    Attributes:
        index: of the finalist in the plan.
        ratio: its rate ÷ the winner's, from all rounds; None if unknown. See `Race.comparison`.
        drop: why it was not visited to the end; None if it was.
        failed: visits in which it failed.
    """

    index: int
    ratio: Interval | None
    drop: Drop | None
    failed: int

    @property
    def is_indistinguishable(self) -> bool:
        """Whether it was measured to the end, without a difference that was shown."""
        return self.drop is None and not self.failed and not self.differs

    @property
    def differs(self) -> bool:
        """Whether a difference was shown; nothing was if it was dropped because it was behind."""
        if self.drop is not None:
            return self.drop.shown is not None
        return self.ratio is not None and self.ratio.excludes_one


@dataclass(frozen=True)
class Confirmation:
    """The results of a plan.

    Attributes:
        rounds: the visits of each complete round, by index of the request.
        verified: the verifications, by index.
        prior: what earlier runs on the host say about the noise of a visit.
        race: the decisions that follow from the visits: it compares scores of the objective.
        rate_estimates: the rates of the visits; those of the race if it compares rates.
    """

    plan: Plan
    rounds: tuple[Mapping[int, TrialResult], ...]
    verified: Mapping[int, TrialResult]
    prior: Variance | None
    race: Race = field(repr=False)
    rate_estimates: Estimates = field(repr=False)

    @classmethod
    def read(
        cls,
        stored: StoredVisits,
        plan: Plan,
        rules: RaceRules,
        prior_for: Callable[[TrialResult], Variance | None] = lambda visit: None,
    ) -> Confirmation:
        """Return what the stored measurements of a plan show; incomplete rounds do not count.

        Args:
            prior_for: returns the prior of the host on which a visit was measured.
        """
        digests = [request.config.digest for request in plan.requests]
        first = next((r for stage in _stages(stored) for r in stored[stage].values()), None)
        objective = plan.objective
        # The history of a host holds the noise of closed loops only.
        prior = prior_for(first) if first and objective.compares_capacities else None
        race = Race(len(digests), rules, prior, plan.reference_share)
        rates = race.estimates if objective.maximizes_rate else Estimates(len(digests))
        rounds: list[Mapping[int, TrialResult]] = []
        while due := race.due():
            measured = stored.get(str(race.rounds), {})
            if not all(digests[index] in measured for index in due):
                break
            rounds.append({index: measured[digests[index]] for index in sorted(due)})
            race.record(
                {index: visit_score(result, objective) for index, result in rounds[-1].items()},
                visit_errors(rounds[-1]) if objective.compares_capacities else {},
            )
            if not objective.maximizes_rate:
                rates.add_round(
                    len(rounds) - 1,
                    {index: visit_rps(result) for index, result in rounds[-1].items()},
                )
        verified = stored.get(VERIFICATION, {})
        return cls(
            plan,
            tuple(rounds),
            {n: verified[digest] for n, digest in enumerate(digests) if digest in verified},
            prior,
            race,
            rates,
        )

    @property
    def missing_curves(self) -> list[int]:
        """The configurations beside the winner whose latency below their rate is not measured.

        Of the reference and the finalists that are statistically indistinguishable from the
        winner: an operator may prefer one of them.
        """
        wanted = (REFERENCE, *(c.index for c in self.comparisons if c.is_indistinguishable))
        served = self.rate_estimates.visit_count
        return [i for i in wanted if i != self.winner and i not in self.verified and served(i)]

    @property
    def visit_count(self) -> int:
        """The number of visits in complete rounds."""
        return sum(len(visits) for visits in self.rounds)

    def visits(self, index: int) -> list[TrialResult]:
        """Return the visits to a configuration in complete rounds."""
        return [visits[index] for visits in self.rounds if index in visits]

    @property
    def leader(self) -> int:
        """The finalist with the highest rate, or the reference if none is faster.

        A finalist whose verification sustained no rate or missed the goal leads only if all did.
        """
        leader, estimates = self.race.best(), self.race.estimates
        if self.is_disproved(leader):
            leader = next((i for i in self.race.order() if not self.is_disproved(i)), leader)
        ratio = self.race.ratio_to_reference(leader)
        if not estimates.visit_count(REFERENCE) or estimates.failures.get(REFERENCE):
            return leader
        is_slower = ratio is not None and ratio.mean < 1
        return REFERENCE if is_slower or not estimates.visit_count(leader) else leader

    @property
    def tied(self) -> list[int]:
        """The finalists that may win in place of the leader, by a lower latency."""
        leader = self.leader
        if leader == REFERENCE:
            return []
        tied = []
        for other in self.race.alive:
            comparison = self._comparison(other, leader)
            # With few rounds the interval is wide: the mean ratio must be close to 1 as well.
            is_close = comparison.ratio is None or comparison.ratio.mean >= MIN_SHARE_OF_LEADER
            is_tied = comparison.is_indistinguishable and is_close
            if other != leader and is_tied and not self.is_disproved(other):
                tied.append(other)
        return tied

    @property
    def winner(self) -> int:
        """Index of the configuration to deploy.

        Of the leader and those tied with it whose verification passed: for the highest rate, the
        one with the lowest p99 latency at the comparison rate, then with the least memory; for the
        lowest latency, with the least memory; for the least memory, with the fewest workers, then
        with the lowest p99 latency. If the leader was not verified: see `_most_sustained`.
        """
        leader = self.leader
        able = {
            index: preference
            for index in (leader, *self.tied)
            if (result := self.verified.get(index))
            and not self.is_disproved(index)
            and (preference := self._preference(result)) is not None
        }
        # The leader's figures must be known: otherwise nothing is compared.
        if not able or (leader not in able and self.sustains(leader)):
            return leader if leader in self.verified else self._most_sustained(leader)
        lowest = min(first for first, _ in able.values())
        tied = [i for i, (first, _) in able.items() if first <= lowest * (1 + SAME_FIGURE)]
        return min(tied, key=lambda i: (able[i][1], able[i][0], i))

    def _most_sustained(self, leader: int) -> int:
        """Return which of the leader and those like it is expected to sustain the highest rate.

        The closed loops cannot tell them apart; how much of it each sustained, in its
        verification or else in the search, may.
        """
        if leader == REFERENCE or not self.plan.objective.compares_capacities:
            return leader

        def expected_rps(index: int) -> float:
            share = self.sustained_share(index) or self.plan.requests[index].known_share
            return (self.mean_rps(index) or 0.0) * (share or 1.0)

        alike = [
            index
            for index in self.race.alive
            if index != leader
            and self._comparison(index, leader).is_indistinguishable
            and not self.is_disproved(index)
            and ((ratio := self.race.ratio_to_reference(index)) is None or ratio.mean >= 1)
        ]
        return max((leader, *alike), key=expected_rps)

    def _preference(self, result: TrialResult) -> tuple[float, float] | None:
        """Return what decides between tied finalists, the lower the better; None if unknown.

        The second figure decides if the first ones differ by no more than `SAME_FIGURE`.
        """
        memory_mb = float(result.server.peak_memory_mb or 0)
        if self.plan.objective.maximizes_rate:
            latency_s = result.latency.comparison_p99_s
            return None if latency_s is None else (latency_s, memory_mb)
        target = result.latency.target
        if target is None or not target.is_served or target.p99_s is None:
            return None
        if self.plan.objective.kind == "latency":
            return memory_mb, target.p99_s
        return float(workers_of(result)), target.p99_s

    def sustains(self, index: int) -> bool:
        """Return whether a configuration sustains a rate, or was not verified."""
        result = self.verified.get(index)
        return result is None or bool(result.sustained_rps)

    def shortfalls(self, index: int) -> tuple[Shortfall, ...]:
        """Return the limits that a configuration missed in its verification; empty without one."""
        result = self.verified.get(index)
        if result is None or result.is_inconclusive:
            return ()
        return self.plan.objective.shortfalls(Figures.of([result]))

    def is_disproved(self, index: int) -> bool:
        """Return whether the verification of a finalist sustained no rate or missed the goal."""
        result = self.verified.get(index)
        if index == REFERENCE or result is None or result.is_inconclusive:
            return False
        return not result.sustained_rps or bool(self.shortfalls(index))

    def _comparison(self, index: int, winner: int) -> Comparison:
        return Comparison(
            index,
            self.race.comparison(index, winner),
            self.race.dropped.get(index),
            self.race.estimates.failures.get(index, 0),
        )

    @property
    def comparisons(self) -> list[Comparison]:
        """The finalists other than the winner, compared with it."""
        winner = self.winner
        if winner == REFERENCE:
            return []
        return [self._comparison(i, winner) for i in self.plan.finalists if i != winner]

    @property
    def ratio(self) -> Interval | None:
        """The rate of the winner ÷ that of the reference; None if unknown.

        If the reference wins: the rate of the best finalist.
        """
        index = self._compared
        if self.plan.objective.maximizes_rate:
            return self.race.ratio_to_reference(index)
        return self.rate_estimates.ratio(index, REFERENCE) if index != REFERENCE else None

    @property
    def _compared(self) -> int:
        """The winner, or the best finalist if the reference wins."""
        return self.winner if self.winner != REFERENCE else self.race.best()

    @property
    def score_ratio(self) -> Interval | None:
        """What is optimized, winner ÷ reference: rate, or inverse of p99 or of memory."""
        return self.race.ratio_to_reference(self._compared)

    def mean_rps(self, index: int) -> float | None:
        """Return the mean rate of the visits, requests/s; None without one."""
        if self.plan.objective.maximizes_rate:
            return self.race.mean_rate(index)
        return (
            math.exp(self.rate_estimates.log_mean(index))
            if self.rate_estimates.visit_count(index)
            else None
        )

    def sustained_share(self, index: int) -> float | None:
        """Return the verified rate ÷ the estimate in the same server; None if not verified."""
        result = self.verified.get(index)
        if result is None or not result.sustained_rps:
            return None
        if not (estimate := visit_rps(result, self.plan.objective)):
            return None
        return result.sustained_rps / estimate

    def expected_share(self, index: int) -> float | None:
        """Return the share of a closed loop that is sustained; None if unknown.

        That of the verification. The winner's must be verified; that of the others may be known
        from the search.
        """
        share = self.sustained_share(index)
        if share is None and index != self.winner and index not in self.verified:
            # Within limits of the latency, the rates of the visits are sustained ones.
            objective = self.plan.objective
            is_sustained = objective.maximizes_rate and objective.limits_latency
            share = 1.0 if is_sustained else self.plan.requests[index].known_share
        return share

    def prediction(self, index: int) -> Interval | None:
        """Return the interval of the rate of one more visit to a fresh server, requests/s."""
        if self.plan.objective.maximizes_rate:
            return self.race.prediction(index)
        return self.rate_estimates.prediction(index)

    def sustained(self, index: int) -> Interval | None:
        """Return the sustained rate in one more measurement, requests/s, with its interval.

        The closed loops vary; see `expected_share` for the share of them that is sustained.
        """
        prediction, share = self.prediction(index), self.expected_share(index)
        return prediction.scaled(share) if prediction and share else None

    def rates(self, index: int) -> list[float]:
        """Return the visits' rates that estimate a configuration, requests/s, by round."""
        rounds = self.rounds[self.race.first_round(index) :]
        objective = self.plan.objective
        return [rate for v in rounds if index in v and (rate := visit_rps(v[index], objective))]

    @property
    def is_conclusive(self) -> bool:
        """Whether the winner never failed, and its rate in one more measurement is known.

        That needs two visits, or one and the noise of earlier confirmations on the host.
        """
        winner = self.winner
        return self.sustained(winner) is not None and not self.race.estimates.failures.get(winner)

    @property
    def why_inconclusive(self) -> str:
        """Why it is not conclusive, without a full stop; empty if it is."""
        winner = self.winner
        if self.is_conclusive:
            return ""
        if winner not in self.verified:
            return "the winner's sustained rate was not verified at the end"
        if not self.sustains(winner):
            return "the winner's verification at the end found no sustained rate"
        if failed := self.race.estimates.failures.get(winner):
            return f"the winner failed in {failed} of {len(self.visits(winner))} visits"
        return "the winner has too few successful visits to know how much its rate varies"


def _stages(stored: StoredVisits) -> Sequence[str]:
    return sorted(stored, key=lambda stage: (len(stage), stage))
