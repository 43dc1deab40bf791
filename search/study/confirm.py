"""The confirmation: short interleaved visits to the finalists and the reference. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from loadgen.rate.goal import Depth
from search.study.estimates import REFERENCE
from search.study.intervals import Interval
from search.study.noise import Variance
from search.study.race import Drop, Race, RaceRules
from search.study.ranking import finalists, rate_of
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import TrialResult

#: Latencies are compared at this share of the lowest rate of all finalists.
COMPARISON_SHARE = 0.8
#: A configuration slower than this share of the search's best is not a finalist.
FINALIST_SHARE = 0.7
#: A configuration with a lower latency wins only with at least this share of the leader's rate.
MIN_SHARE_OF_LEADER = 0.95
#: Stage of the measurements that verify a sustained rate, after those of the rounds "0", "1", ….
VERIFICATION = "verification"

#: The results of a plan by stage, then by the configuration's digest.
StoredVisits = Mapping[str, Mapping[str, TrialResult]]


class VisitStore(Protocol):
    """Stores the measurements of a confirmation."""

    def record_visit(self, plan: str, stage: str, result: TrialResult) -> None:
        """Record a measurement of a plan in this stage."""

    def visits(self, plan: str) -> StoredVisits:
        """Return the measurements of a plan."""
        ...


@dataclass(frozen=True)
class Plan:
    """The configurations to measure: the reference first, then the finalists, best first."""

    requests: tuple[TrialRequest, ...]

    @classmethod
    def of(
        cls,
        results: list[TrialResult],
        reference: TrialResult,
        count: int,
        nominated: Sequence[str] = (),
    ) -> Plan:
        """Return the plan for these results.

        Args:
            results: at least one has a rate.
            count: the maximum number of finalists.
            nominated: digests of the configurations that come first; see `finalists`.
        """
        configs = finalists(results, count, nominated)
        rates = [(config, rate_of(results, config) or 0.0) for config in configs]
        highest = max(rate for _, rate in rates)
        rated = [(config, rate) for config, rate in rates if rate >= FINALIST_SHARE * highest]
        best = [config for config, _ in rated]
        comparison_rps = COMPARISON_SHARE * min(rate for _, rate in rated)
        numbers = {r.config.digest: r.number for r in results if r.sustained_rps}
        others = [config for config in best if config != reference.config]
        requests = [
            TrialRequest(
                numbers.get(config.digest, reference.number),
                TrialOrigin.CONFIRMATION,
                config,
                known_rps=rate_of(results, config) or None,
                comparison_rps=comparison_rps if config in best else None,
            )
            for config in (reference.config, *others)
        ]
        return cls(tuple(requests))

    @property
    def name(self) -> str:
        """A digest of the configurations that does not depend on their order."""
        digests = sorted(request.config.digest for request in self.requests)
        return hashlib.sha256(",".join(digests).encode()).hexdigest()[:12]

    @property
    def finalists(self) -> list[int]:
        """Indices of the finalists; the reference is none of them."""
        return list(range(1, len(self.requests)))

    @property
    def reference_share(self) -> float | None:
        """The rate of the reference ÷ that of the best finalist, in the search."""
        if len(self.requests) < 2:
            return None
        return (self.requests[0].known_rps or 0.0) / (self.requests[1].known_rps or 1.0)

    def visit(self, index: int) -> TrialRequest:
        """Return the request of a short visit: the server starts, a closed loop, it stops."""
        return replace(self.requests[index], depth=Depth.ESTIMATE, comparison_rps=None)

    def verification(self, index: int, is_compared: bool) -> TrialRequest:
        """Return the request that verifies a sustained rate, and measures latencies below it.

        Args:
            is_compared: whether latencies are compared with those of other finalists.
        """
        request = replace(self.requests[index], depth=Depth.FULL, latency_curve=True)
        return request if is_compared else replace(request, comparison_rps=None)


@dataclass(frozen=True)
class Step:
    """The measurements that come next.

    Attributes:
        stage: the number of the round, or `VERIFICATION`.
        round_number: from 0; a verification follows the last round.
        requests: in order, without what was measured before.
    """

    stage: str
    round_number: int
    requests: tuple[TrialRequest, ...]

    @property
    def is_verification(self) -> bool:
        """Whether the sustained rates are verified."""
        return self.stage == VERIFICATION


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
        race: the decisions that follow from the visits.
    """

    plan: Plan
    rounds: tuple[Mapping[int, TrialResult], ...]
    verified: Mapping[int, TrialResult]
    prior: Variance | None
    race: Race = field(repr=False)

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
        prior = prior_for(first) if first else None
        race = Race(len(digests), rules, prior, plan.reference_share)
        rounds: list[Mapping[int, TrialResult]] = []
        while due := race.due():
            measured = stored.get(str(race.rounds), {})
            if not all(digests[index] in measured for index in due):
                break
            rounds.append({index: measured[digests[index]] for index in sorted(due)})
            race.record({index: visit_rps(result) for index, result in rounds[-1].items()})
        verified = stored.get(VERIFICATION, {})
        return cls(
            plan,
            tuple(rounds),
            {n: verified[digest] for n, digest in enumerate(digests) if digest in verified},
            prior,
            race,
        )

    # --- what comes next -------------------------------------------------------------

    def next_round(self, stored: StoredVisits) -> Step | None:
        """Return the visits of the next round that are missing; None if the race is over."""
        measured = stored.get(str(self.race.rounds), {})
        requests = [self.plan.visit(index) for index in self.race.due()]
        missing = tuple(r for r in requests if r.config.digest not in measured)
        return Step(str(self.race.rounds), self.race.rounds, missing) if requests else None

    def next_verification(self, leader_only: bool = False) -> Step | None:
        """Return the verifications that are missing; None if there are none.

        Verified are the leader and the finalists that are tied with it, whose latencies decide.

        Args:
            leader_only: return that of the leader alone, if there is no time for the others.
        """
        if not self.rounds:
            return None
        leader = self._leader
        verified = self.verified.get(leader)
        if verified and verified.latency.comparison_p99_s is None and self._sustains(leader):
            leader_only = True  # Its latency cannot be compared any more.
        wanted = [leader] if leader_only else [leader, *self._tied]
        missing = tuple(
            self.plan.verification(index, is_compared=len(wanted) > 1)
            for index in wanted
            if index not in self.verified
        )
        return Step(VERIFICATION, self.race.rounds, missing) if missing else None

    # --- what was found --------------------------------------------------------------

    @property
    def visit_count(self) -> int:
        """The number of visits in complete rounds."""
        return sum(len(visits) for visits in self.rounds)

    @property
    def _leader(self) -> int:
        """The finalist with the highest rate, or the reference if none is faster."""
        leader, estimates = self.race.best(), self.race.estimates
        ratio = self.race.ratio_to_reference(leader)
        if not estimates.visit_count(REFERENCE) or estimates.failures.get(REFERENCE):
            return leader
        is_slower = ratio is not None and ratio.mean < 1
        return REFERENCE if is_slower or not estimates.visit_count(leader) else leader

    @property
    def _tied(self) -> list[int]:
        """The finalists that may win in place of the leader, by a lower latency."""
        leader = self._leader
        if leader == REFERENCE:
            return []
        tied = []
        for other in self.race.alive:
            comparison = self._comparison(other, leader)
            # With few rounds the interval is wide: the mean ratio must be close to 1 as well.
            is_close = comparison.ratio is None or comparison.ratio.mean >= MIN_SHARE_OF_LEADER
            if other != leader and comparison.is_indistinguishable and is_close:
                tied.append(other)
        return tied

    @property
    def winner(self) -> int:
        """Index of the configuration to deploy.

        Of the leader and those tied with it, the one with the lowest p99 latency at the
        comparison rate, if it sustains a rate.
        """
        leader = self._leader
        able = [
            (latency_s, index)
            for index in (leader, *self._tied)
            if (result := self.verified.get(index))
            and result.sustained_rps
            and (latency_s := result.latency.comparison_p99_s) is not None
        ]
        # The leader's latency must be known: otherwise nothing is compared.
        is_known = leader in {index for _, index in able} or not self._sustains(leader)
        return min(able)[1] if able and is_known else leader

    def _sustains(self, index: int) -> bool:
        result = self.verified.get(index)
        return result is None or bool(result.sustained_rps)

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
        winner = self.winner
        return self.race.ratio_to_reference(winner if winner != REFERENCE else self.race.best())

    def mean_rps(self, index: int) -> float | None:
        """Return the mean of the visits' closed loops, requests/s; None without one."""
        return self.race.mean_rate(index)

    def sustained_share(self, index: int) -> float | None:
        """Return the verified rate ÷ the estimate in the same server; None if not verified."""
        result = self.verified.get(index)
        if result is None or not result.sustained_rps or not (estimate := visit_rps(result)):
            return None
        return result.sustained_rps / estimate

    def prediction(self, index: int) -> Interval | None:
        """Return the interval of one more closed loop in a fresh server, requests/s."""
        return self.race.prediction(index)

    def sustained(self, index: int) -> Interval | None:
        """Return the sustained rate in one more measurement, requests/s, with its interval.

        The closed loops vary; the share of them that is sustained is that of the verification.
        """
        prediction, share = self.prediction(index), self.sustained_share(index)
        return prediction.scaled(share) if prediction and share else None

    def rates(self, index: int) -> list[float]:
        """Return the closed loops that estimate a configuration, requests/s, by round."""
        rounds = self.rounds[self.race.first_round(index) :]
        return [rate for v in rounds if index in v and (rate := visit_rps(v[index]))]

    @property
    def is_conclusive(self) -> bool:
        """Whether the winner was visited at least twice, never failed, and sustains a rate."""
        winner = self.winner
        return self.sustained(winner) is not None and not self.race.estimates.failures.get(winner)

    def summary(self) -> dict[str, Any]:
        """Return plain JSON data; the first configuration is the reference."""
        names = [f"trial {request.number}" for request in self.plan.requests]
        race, winner = self.race, self.winner
        return {
            "winner": names[winner],
            "rounds": race.rounds,
            "visits": self.visit_count,
            "first_estimating_round": race.first_round(winner),
            "method": "paired" if race.estimates.is_paired else "Welch",
            "noise": {
                "sd": race.estimates.variance.value**0.5,
                "dof": race.estimates.variance.dof,
                "prior_sd": self.prior.value**0.5 if self.prior else None,
                "prior_dof": self.prior.dof if self.prior else None,
            },
            "ratio_to_reference": _bounds(self.ratio),
            "sustained_rps": _bounds(self.sustained(winner)),
            "capacity_rps": _bounds(self.prediction(winner)),
            "finalists": [
                {
                    "config": names[c.index],
                    "ratio_to_winner": _bounds(c.ratio),
                    "dropped_after": c.drop.rounds if c.drop else None,
                    "differs": c.differs,
                    "indistinguishable": c.is_indistinguishable,
                }
                for c in self.comparisons
            ],
            "configs": [
                {
                    "config": name,
                    "capacity_rps": [
                        visit_rps(visits[index]) if index in visits else None
                        for visits in self.rounds
                    ],
                    "verified": self.verified[index].to_dict() if index in self.verified else None,
                    "results": [v[index].to_dict() for v in self.rounds if index in v],
                }
                for index, name in enumerate(names)
            ],
        }


def visit_rps(result: TrialResult) -> float | None:
    """Return the closed-loop throughput of a measurement, requests/s.

    0 if the server failed; None if the measurement shows nothing about its configuration.
    """
    if result.is_inconclusive:
        return None
    return result.capacity_rps or 0.0


def _stages(stored: StoredVisits) -> Sequence[str]:
    return sorted(stored, key=lambda stage: (len(stage), stage))


def _bounds(interval: Interval | None) -> dict[str, float] | None:
    if interval is None:
        return None
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}


async def confirm(
    store: VisitStore,
    plan: Plan,
    read: Callable[[], Confirmation],
    may_start: Callable[[Step], bool],
    measure: Callable[[Step, TrialRequest, Path], Awaitable[TrialResult]],
) -> None:
    """Measure rounds until the race is over or time is, then verify the winner's rate.

    Each measurement is stored when it ends, so that a later call continues.

    Args:
        read: returns what is stored of the plan.
        may_start: whether there is time for a step.
        measure: measures a request; writes its files to a folder, relative to the run.
    """

    async def carry_out(step: Step) -> None:
        for request in step.requests:
            folder = Path("confirm", plan.name, f"{step.stage}-{request.number}")
            store.record_visit(plan.name, step.stage, await measure(step, request, folder))

    while (step := read().next_round(store.visits(plan.name))) and may_start(step):
        await carry_out(step)
    while step := next((s for s in verifications(read()) if may_start(s)), None):
        await carry_out(step)


def confirming(step: Step) -> str:
    """Return what a step of the confirmation measures, and why, in plain words."""
    if step.is_verification:
        return "verifying that the winner sustains its rate, and measuring its latency"
    return "measuring the best configurations again in fresh servers: one result may be luck"


def verifications(confirmation: Confirmation) -> list[Step]:
    """Return the verifications that may come next: all that are missing, or that of the leader."""
    steps = (confirmation.next_verification(), confirmation.next_verification(leader_only=True))
    return [step for step in steps if step is not None]
