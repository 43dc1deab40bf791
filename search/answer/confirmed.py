"""What a confirmation measured of one configuration. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from search.confirmation.confirmation import Confirmation
from search.intervals import Interval
from search.trial.result import TrialResult
from serving.configuration.config import ServerConfig


@dataclass(frozen=True)
class Confirmed:
    """The measurements of a configuration in a confirmation.

    Attributes:
        number: of its trial in the confirmation's plan.
        is_winner: whether the confirmation chose it.
        sustained: its sustained rate in one more measurement, requests/s, with the 95 % interval;
            None if it failed in a visit, too few visits were made, or it won and was not verified.
        closed_loop: the throughput of one more closed loop, likewise.
        verified: the verification of its sustained rate; None without one that passed.
        servers: every measurement, each in a fresh server.
    """

    number: int
    is_winner: bool
    sustained: Interval | None
    closed_loop: Interval | None
    verified: TrialResult | None
    servers: tuple[TrialResult, ...]

    @classmethod
    def of(cls, confirmation: Confirmation | None, config: ServerConfig) -> Confirmed | None:
        """Return the measurements of a configuration; None if it is none of the plan."""
        index = confirmation.plan.index_of(config) if confirmation else None
        if confirmation is None or index is None:
            return None
        verified = confirmation.verified.get(index)
        visits = confirmation.visits(index)
        has_failed = bool(confirmation.race.estimates.failures.get(index))
        return cls(
            confirmation.plan.requests[index].number,
            index == confirmation.winner,
            None if has_failed else confirmation.sustained(index),
            None if has_failed else confirmation.prediction(index),
            verified if verified and verified.sustained_rps else None,
            (*visits, verified) if verified else tuple(visits),
        )
