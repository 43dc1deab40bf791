"""What is known of a run: its trials, its best, how it ended. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from search.spec.schema import StudySpec
from search.study.confirm import Confirmation
from search.study.run_folder import Run
from search.trial.result import TrialResult


@dataclass(frozen=True)
class Outcome:
    """A run as it is now.

    Attributes:
        spec: its specification, as resolved.
        recorded: the hosts, versions and placement that the run was made with.
        results: every finished trial, by number.
        best: the newest measurement of the configuration with the highest median rate.
        reference: the trial that all are compared with.
        importance: share of the rates' variation that each setting explains.
        reason: why the run ended; None while it has not.
        notes: notes on the hosts.
        failed: whether the run cannot continue, since the reference does not serve at all.
        interrupted: whether it was interrupted by the user.
    """

    run: Run
    spec: StudySpec
    recorded: Mapping[str, Any]
    results: list[TrialResult]
    best: TrialResult | None
    reference: TrialResult | None
    reason: str | None
    importance: Mapping[str, float] = field(default_factory=dict)
    confirmation: Confirmation | None = None
    notes: tuple[str, ...] = ()
    failed: bool = False
    interrupted: bool = False

    @property
    def chosen(self) -> TrialResult | None:
        """The trial to deploy: the confirmation's winner, else the best of the search."""
        if self.confirmation is None:
            return self.best
        request = self.confirmation.plan.requests[self.confirmation.winner]
        return next(r for r in self.results if r.number == request.number)
