"""The measurements of a confirmation: where they are stored, what each shows. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from loadgen.rate.thresholds import DEFAULT_THRESHOLDS
from search.trial.objective import Figures, Objective
from search.trial.ranking import RATE
from search.trial.result import TrialResult

#: The results of a plan by stage, then by the configuration's digest.
StoredVisits = Mapping[str, Mapping[str, TrialResult]]


class VisitStore(Protocol):
    """Stores the measurements of a confirmation."""

    def record_visit(self, plan: str, stage: str, result: TrialResult) -> None:
        """Record a measurement of a plan in this stage."""

    def visits(self, plan: str) -> StoredVisits:
        """Return the measurements of a plan."""
        ...


def visit_rps(result: TrialResult, objective: Objective = RATE) -> float | None:
    """Return the closed-loop throughput of a measurement, or the rate that meets the limits of
    the latency, requests/s.

    0 if the server failed; None if the measurement shows nothing about its configuration.
    """
    if result.is_inconclusive:
        return None
    if objective.maximizes_rate and objective.limits_latency:
        return result.sustained_rps or 0.0
    return result.capacity_rps or 0.0


def visit_score(result: TrialResult, objective: Objective) -> float | None:
    """Return what a measurement shows of the objective; see `Objective.score`.

    0 if the server failed or missed a limit; None if the measurement shows nothing.
    """
    if objective.maximizes_rate:
        is_small = objective.is_small_enough(Figures.of([result]))
        return visit_rps(result, objective) if is_small else 0.0
    if result.is_inconclusive:
        return None
    target = result.latency.target
    if target is not None and target.p99_s is None:
        return None
    # A visit verifies no rate: what is verified at the end is a little below the closed loop's.
    expected_rps = DEFAULT_THRESHOLDS.offered * (result.capacity_rps or 0.0)
    figures = replace(Figures.of([result]), sustained_rps=expected_rps)
    if target is None or objective.shortfalls(figures):
        return 0.0
    return objective.score(figures)


def visit_errors(visits: Mapping[int, TrialResult]) -> dict[int, float]:
    """Return the standard error of the logarithm of each closed loop's throughput, if known."""
    estimates = {index: result.estimate for index, result in visits.items()}
    return {i: e.standard_error for i, e in estimates.items() if e and e.standard_error}
