"""The outcome of a run: its trials, its best configuration, why it ended. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from search.confirmation.confirmation import Confirmation
from search.spec.schema import StudySpec
from search.spec.space import Space
from search.study.run_folder import Run
from search.trial.objective import Objective, Shortfall
from search.trial.ranking import closest_of
from search.trial.result import TrialResult


@dataclass(frozen=True)
class Outcome:
    """The current state of a run.

    Attributes:
        spec: the specification with all defaults resolved.
        recorded: the name, hosts, versions and placement at the run's creation.
        results: every finished trial, by number.
        best: the newest measurement of the best configuration that meets the limits; None if
            none does.
        reference: the trial that the others are compared with.
        importance: share of the variance of what is optimized that each setting explains.
        reason: why the run ended; None if it has not.
        notes: warnings about the hosts, the baseline and the edges of the space.
        failed: whether the run stopped because the reference failed.
        interrupted: whether the user interrupted the run.
        space: the search space, with the ranges that were widened.
        restored: whether the study was missing, so that the results are those in the run's folder.
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
    restored: bool = False
    space: Space | None = None

    @property
    def objective(self) -> Objective:
        """What the run optimizes, under which limits."""
        return Objective.of(self.spec.goal)

    @property
    def closest(self) -> list[tuple[TrialResult, tuple[Shortfall, ...]]]:
        """If nothing meets the limits: what misses them by least, and what each misses."""
        if self.best is not None or self.spec.sweep is not None:
            return []
        return closest_of(self.results, self.objective)

    @property
    def chosen(self) -> TrialResult | None:
        """The trial to deploy: the confirmation's winner, else the best of the search."""
        if self.confirmation is None:
            return self.best
        request = self.confirmation.plan.requests[self.confirmation.winner]
        return next(r for r in self.results if r.number == request.number)
