"""The measurements of a confirmation that come next. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from search.confirmation.confirmation import Confirmation
from search.confirmation.plan import VERIFICATION
from search.confirmation.visits import StoredVisits
from search.trial.request import TrialRequest


@dataclass(frozen=True)
class Step:
    """The measurements that come next.

    Attributes:
        stage: the number of the round, or `VERIFICATION`.
        round_number: from 0; a verification follows the last round.
        requests: in order, without what was measured before.
        is_curve: whether a configuration is verified only for the latency below its rate, on which
            nothing depends.
    """

    stage: str
    round_number: int
    requests: tuple[TrialRequest, ...]
    is_curve: bool = False

    @property
    def is_verification(self) -> bool:
        """Whether the sustained rates are verified."""
        return self.stage == VERIFICATION


def next_round(confirmation: Confirmation, stored: StoredVisits) -> Step | None:
    """Return the visits of the next round that are missing; None if the race is over."""
    number = confirmation.race.rounds
    measured = stored.get(str(number), {})
    requests = [confirmation.plan.visit(index) for index in confirmation.race.due()]
    missing = tuple(r for r in requests if r.config.digest not in measured)
    return Step(str(number), number, missing) if requests else None


def next_verification(
    confirmation: Confirmation,
    leader_only: bool = False,
    has_curve: bool = True,
    at_reference_rate: bool = True,
) -> Step | None:
    """Return the verifications that are missing; None if there are none.

    Verified are the leader and the finalists that are tied with it, whose latencies decide.

    Args:
        leader_only: return that of the leader alone, if there is no time for the others.
        has_curve: whether latencies below the rate are measured, too.
        at_reference_rate: whether the leader's latency at the reference's rate is one of them.
    """
    if not confirmation.rounds:
        return None
    leader = confirmation.leader
    verified = confirmation.verified.get(leader)
    if verified and verified.latency.comparison_p99_s is None and confirmation.sustains(leader):
        leader_only = True  # Its latency cannot be compared any more.
    wanted = [leader] if leader_only else [leader, *confirmation.tied]
    missing = tuple(
        confirmation.plan.verification(
            index, len(wanted) > 1, has_curve, at_reference_rate and index == leader
        )
        for index in wanted
        if index not in confirmation.verified
    )
    return Step(VERIFICATION, confirmation.race.rounds, missing) if missing else None


def next_curves(confirmation: Confirmation) -> list[Step]:
    """Return a step for each of the missing curves; none before the leader is verified."""
    if confirmation.leader not in confirmation.verified:
        return []
    return [
        Step(
            VERIFICATION,
            confirmation.race.rounds,
            (confirmation.plan.verification(index, is_compared=False),),
            is_curve=True,
        )
        for index in confirmation.missing_curves
    ]


def verifications(confirmation: Confirmation) -> list[Step]:
    """Return the verifications that may come next, the longest first.

    All that are missing, that of the leader, the same without its latency at the reference's
    rate, or without its latency curve.
    """
    steps = (
        next_verification(confirmation),
        next_verification(confirmation, leader_only=True),
        next_verification(confirmation, leader_only=True, at_reference_rate=False),
        next_verification(confirmation, leader_only=True, has_curve=False),
    )
    return [step for step in steps if step is not None]
