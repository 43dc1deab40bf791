"""How long the rest of a confirmation is expected to take."""

from __future__ import annotations

import math
from statistics import mean

from loadgen.rate.goal import Depth
from loadgen.rate.pace import Pace
from search.confirmation.confirmation import Confirmation
from search.confirmation.estimates import REFERENCE
from search.confirmation.plan import VERIFICATION, Plan, plan_confirmation
from search.confirmation.steps import Step
from search.spec.schema import StudySpec
from search.study.store import StudyStore
from search.trial.request import TrialRequest
from search.trial.result import TrialResult, TrialState

#: Duration of a visit's closed loop with what surrounds it, until visits were measured.
CLOSED_LOOP_S = 10.0
#: Share of the time budget that is reserved for the confirmation, and the maximum share if fewer
#: than `LEAST_ROUNDS` rounds would fit otherwise.
CONFIRMATION_BUDGET_SHARE, MAX_CONFIRMATION_SHARE = 0.4, 0.5
#: Rounds without which the noise of a visit is unknown.
LEAST_ROUNDS = 2
#: A latency curve on which nothing depends may take this share of the confirmation's time limit.
CURVE_SHARE = 1 / 3
#: A verification may take this many times as long as expected: a rate that does not pass is lowered
#: and offered again.
_LONGER = 1.3
#: Phases of a trial that a visit has too, beside the closed loop.
_RESTART = ("start", "stop")


class ConfirmationTime:
    """The expected durations of a confirmation's measurements, by the results so far.

    Args:
        store: with the results so far.
    """

    def __init__(self, spec: StudySpec, store: StudyStore):
        self._spec, self._store = spec, store
        self._limit_s = spec.confirm.time_limit_s if spec.confirm else 0.0

    def _plan(self) -> Plan | None:
        return plan_confirmation(self._spec, self._store.results, self._store.nominated)

    def curve_s(self, request: TrialRequest) -> float:
        """Return the time that a latency curve on which nothing depends needs, seconds.

        Infinity if it would take too long.
        """
        limit_s = CURVE_SHARE * self._limit_s
        needed_s = _LONGER * self.verification_s(request)
        return needed_s if needed_s <= limit_s else math.inf

    def curves_s(self, confirmation: Confirmation | None) -> float:
        """Return the time to keep for the latency curves beside the winner's, seconds."""
        if confirmation is None:
            return 0.0
        plan, missing = confirmation.plan, confirmation.missing_curves
        needed_s = [self.curve_s(plan.verification(i, is_compared=False)) for i in missing]
        return sum(seconds for seconds in needed_s if math.isfinite(seconds))

    def left_s(self) -> float:
        """Return what the visits so far leave of the time limit, seconds."""
        return self._limit_s - sum(visit.duration_s for visit in self._visits())

    def expected_s(self, step: Step) -> float:
        """Return the expected duration of a verification, seconds."""
        return sum(self.verification_s(request) for request in step.requests)

    def _visits(self) -> list[TrialResult]:
        """Return the visits so far of the plan for these results, without verifications."""
        plan = self._plan()
        stored = self._store.visits(plan.name) if plan else {}
        return [
            visit
            for stage, visits in stored.items()
            if stage != VERIFICATION
            for visit in visits.values()
        ]

    def visit_s(self) -> float:
        """Return the expected duration of a visit, seconds: by those so far, else by the trials."""
        if visits_s := [visit.duration_s for visit in self._visits()]:
            return mean(visits_s)
        trials_s = [
            min(r.duration_s, self._expected_visit_s(r))
            for r in self._store.results
            if r.state is TrialState.COMPLETE
        ]
        return mean(trials_s) if trials_s else 0.0

    def _expected_visit_s(self, trial: TrialResult) -> float:
        """Return the expected duration of a visit to the configuration of a trial, seconds."""
        restart_s = sum(trial.timing.phases_s.get(phase, 0.0) for phase in _RESTART)
        goal = self._spec.rate_goal()
        depth = Depth.SCREEN if goal.lowers_rate else Depth.ESTIMATE
        pace = Pace(goal, trial.server.batch_capacity or 1, depth)
        windows_s = pace.visit_s(trial.sustained_rps) if trial.sustained_rps else 0.0
        return restart_s + CLOSED_LOOP_S + _LONGER * windows_s

    def verification_s(self, request: TrialRequest | None = None, has_curve: bool = True) -> float:
        """Return the expected duration of a verification, seconds.

        Args:
            request: None for that of the best configuration.
            has_curve: whether that one has a latency curve.
        """
        plan = self._plan()
        measured, compared_rps = self._store.best, None
        from_rps = plan.reference_rps if plan else None
        if request is not None:
            found = [
                r
                for r in self._store.results
                if r.config == request.config and (r.capacity_rps or r.sustained_rps)
            ]
            measured, compared_rps = next(reversed(found), None), request.comparison_rps
            has_curve, from_rps = request.latency_curve, request.curve_from_rps
        rate_rps = (measured.capacity_rps or measured.sustained_rps or 0.0) if measured else 0.0
        cycle = (measured.server.batch_capacity or 1) if measured else 1
        if not rate_rps:
            return self.visit_s()
        pace = Pace(self._spec.rate_goal(), cycle)
        return self.visit_s() + pace.expected_s(rate_rps, has_curve, compared_rps, from_rps)

    def reserve_s(self) -> float:
        """Return the time to keep for the rest of the confirmation, seconds.

        None is kept before another configuration than a reference was tried.
        """
        plan = self._plan()
        if plan is None or (budget_s := self._spec.search.time_budget_s) is None:
            return 0.0
        if all(result.origin.is_reference for result in self._store.results):
            return 0.0
        visits_s = self._spec.confirmation_rounds * len(plan.requests) * self.visit_s()
        # The time of the reference's latency curve is kept, too.
        curve_s = self.curve_s(plan.verification(REFERENCE, is_compared=False))
        needed_s = min(visits_s, self._limit_s) + self.verification_s()
        needed_s += curve_s if math.isfinite(curve_s) else 0.0
        # The reference is visited once.
        least_visits = LEAST_ROUNDS * len(plan.finalists) + 1
        least_s = least_visits * self.visit_s() + self.verification_s()
        share_s = max(CONFIRMATION_BUDGET_SHARE * budget_s, least_s)
        reserve_s = min(needed_s, share_s, MAX_CONFIRMATION_SHARE * budget_s)
        return max(reserve_s - self._store.confirmation_spent_s, 0.0)
