"""Decide whether another trial or another round of the confirmation may start."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from statistics import mean

from loadgen.percent import format_percent
from loadgen.rate.pace import Pace
from search.spec.schema import StudySpec
from search.study.confirmation import Confirmation
from search.study.confirmation_plan import VERIFICATION, Plan
from search.study.confirmation_steps import Step, next_curves, next_round, verifications
from search.study.estimates import REFERENCE
from search.study.race import RaceRules
from search.study.ranking import RATE, finalists, reference_of
from search.study.store import StudyStore
from search.study.targets import WORTHWHILE
from search.study.visits import StoredVisits
from search.trial.objective import Figures, Objective
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import TrialResult, TrialState
from servetune.errors import is_memory

INTERRUPTED = "it was interrupted"
#: Duration of a visit's closed loop with what surrounds it, until visits were measured.
CLOSED_LOOP_S = 10.0
#: Share of the time budget that is reserved for the confirmation, and the maximum share if fewer
#: than `LEAST_ROUNDS` rounds would fit otherwise.
CONFIRMATION_BUDGET_SHARE, MAX_CONFIRMATION_SHARE = 0.4, 0.5
#: Rounds without which the noise of a visit is unknown.
LEAST_ROUNDS = 2
#: Rounds of the confirmation to which its time limit does not apply.
MIN_ROUNDS = 3
#: A latency curve on which nothing depends may take this share of the confirmation's time limit.
CURVE_SHARE = 1 / 3
#: A verification may take this many times as long as expected: a rate that does not pass is lowered
#: and offered again.
_LONGER = 1.3
#: Phases of a trial that a visit has too, beside the closed loop.
_RESTART = ("start", "stop")
#: Number of trials failed by the host that do not count as trials of a search.
_UNCOUNTED_HOST_FAULTS = 10
#: Expected duration of the probes of a trial, seconds.
PROBES_S = 8.0
#: Quantile of the trials' durations that the next trial is expected to take.
_DURATION_QUANTILE = 0.8

ReadConfirmation = Callable[[StoredVisits, Plan], Confirmation]


class Budget:
    """The limits of a run: trials, time, target and patience.

    Args:
        store: with the results so far; the time they took counts.
        read: returns what the stored measurements of a confirmation's plan show; without a
            prior if None.

    Attributes:
        interrupted: set when the run is to stop.
        failed: whether the reference configuration cannot serve.
        reason: why the last call of `may_start_trial` returned False.
    """

    def __init__(self, spec: StudySpec, store: StudyStore, read: ReadConfirmation | None = None):
        rules = RaceRules(spec.confirmation_rounds)
        self._spec = spec
        self._read = read or (lambda stored, plan: Confirmation.read(stored, plan, rules))
        self._search, self._width = spec.search, spec.goal.width
        # A sweep measures all its points; the limit of a search does not apply.
        self._max_trials = len(spec.points()) if spec.sweep else spec.search.trials
        self._started_s = time.monotonic() - store.spent_s
        self._reference_origin = (
            TrialOrigin.DEFAULT if spec.serving.baseline is None else TrialOrigin.BASELINE
        )
        self._store = store
        self.interrupted = threading.Event()
        self.failed = False
        self.reason = "no configuration was found that had not been tried"

    @property
    def spent_s(self) -> float:
        """Duration of the run so far, seconds, over all its drivers."""
        return time.monotonic() - self._started_s

    @property
    def _remaining_s(self) -> float:
        return (self._search.time_budget_s or float("inf")) - self.spent_s

    def confirmation(self) -> Confirmation | None:
        """Return what was measured of the confirmation so far; None if there is none."""
        plan = confirmation_plan(self._spec, self._store.results, self._store.nominated)
        if plan is None or self.failed:
            return None
        return self._read(self._store.visits(plan.name), plan)

    def pending_confirmation(self) -> Confirmation | None:
        """Return the confirmation if a step of it is missing and may start."""
        confirmation = self.confirmation()
        if confirmation is None:
            return None
        stored = self._store.visits(confirmation.plan.name)
        steps = (
            next_round(confirmation, stored),
            *verifications(confirmation),
            *next_curves(confirmation),
        )
        may_start = any(step is not None and self.may_start_step(step) for step in steps)
        return confirmation if may_start else None

    def may_start_step(self, step: Step) -> bool:
        """Return whether there is time to start, or to continue, this step of the confirmation.

        It may exceed the budget by no more than half a measurement; a latency curve on which
        nothing depends may not exceed it.
        """
        if self.interrupted.is_set():
            return False
        results = self._store.results
        if step.is_curve:
            needed_s = sum(self._curve_s(results, request) for request in step.requests)
            return math.isfinite(needed_s) and self._remaining_s >= needed_s
        if step.is_verification:
            last_s = self._verification_s(results, step.requests[-1])
            return self._remaining_s >= self.expected_s(step) - 0.5 * last_s
        visit_s = self._visit_s(results)
        needed_s = (len(step.requests) - 0.5) * visit_s
        kept_s = self._verification_s(results)
        if step.round_number >= MIN_ROUNDS:
            if self._confirmation_left_s(results) < needed_s:
                return False
            kept_s += self._curves_s(results)
        return self._remaining_s >= needed_s + kept_s

    def expected_s(self, step: Step) -> float:
        """Return the expected duration of a verification, seconds."""
        results = self._store.results
        return sum(self._verification_s(results, request) for request in step.requests)

    def _curve_s(self, results: list[TrialResult], request: TrialRequest) -> float:
        """Return the time that a latency curve on which nothing depends needs, seconds.

        Infinity if it would take too long.
        """
        limit_s = CURVE_SHARE * (self._spec.confirm.time_limit_s if self._spec.confirm else 0.0)
        needed_s = _LONGER * self._verification_s(results, request)
        return needed_s if needed_s <= limit_s else math.inf

    def _curves_s(self, results: list[TrialResult]) -> float:
        """Return the time to keep for the latency curves beside the winner's, seconds."""
        if (confirmation := self.confirmation()) is None:
            return 0.0
        requests = [confirmation.plan.requests[i] for i in confirmation.missing_curves]
        needed_s = [self._curve_s(results, request) for request in requests]
        return sum(seconds for seconds in needed_s if math.isfinite(seconds))

    def _confirmation_left_s(self, results: list[TrialResult]) -> float:
        limit_s = self._spec.confirm.time_limit_s if self._spec.confirm else 0.0
        return limit_s - sum(visit.duration_s for visit in self._visits(results))

    def _visits(self, results: list[TrialResult]) -> list[TrialResult]:
        """Return the visits so far of the plan for these results, without verifications."""
        plan = confirmation_plan(self._spec, results, self._store.nominated)
        stored = self._store.visits(plan.name) if plan else {}
        return [
            visit
            for stage, visits in stored.items()
            if stage != VERIFICATION
            for visit in visits.values()
        ]

    def _visit_s(self, results: list[TrialResult]) -> float:
        """Return the expected duration of a visit, seconds: by those so far, else by the trials."""
        if visits_s := [visit.duration_s for visit in self._visits(results)]:
            return mean(visits_s)
        trials_s = [
            min(r.duration_s, CLOSED_LOOP_S + sum(r.timing.phases_s.get(p, 0.0) for p in _RESTART))
            for r in results
            if r.state is TrialState.COMPLETE
        ]
        return mean(trials_s) if trials_s else 0.0

    def _verification_s(
        self, results: list[TrialResult], request: TrialRequest | None = None
    ) -> float:
        """Return the expected duration of a verification, seconds.

        Args:
            request: None for that of the best configuration.
        """
        measured, compared_rps = self._store.best, None
        if request is not None:
            found = [
                r
                for r in results
                if r.config == request.config and (r.capacity_rps or r.sustained_rps)
            ]
            measured, compared_rps = next(reversed(found), None), request.comparison_rps
        rate_rps = (measured.capacity_rps or measured.sustained_rps or 0.0) if measured else 0.0
        cycle = (measured.server.batch_capacity or 1) if measured else 1
        if not rate_rps:
            return self._visit_s(results)
        pace = Pace(self._spec.rate_goal(), cycle)
        return self._visit_s(results) + pace.expected_s(rate_rps, True, compared_rps)

    def _confirmation_reserve_s(self, results: list[TrialResult]) -> float:
        """Return the time to keep for the rest of the confirmation, seconds."""
        plan = confirmation_plan(self._spec, results, self._store.nominated)
        if plan is None or self._search.time_budget_s is None:
            return 0.0
        visits_s = self._spec.confirmation_rounds * len(plan.requests) * self._visit_s(results)
        limit_s = self._spec.confirm.time_limit_s if self._spec.confirm else 0.0
        # The time of the reference's latency curve is kept, too.
        curve_s = self._curve_s(results, plan.requests[REFERENCE])
        needed_s = min(visits_s, limit_s) + self._verification_s(results)
        needed_s += curve_s if math.isfinite(curve_s) else 0.0
        # The reference is visited once.
        least_visits = LEAST_ROUNDS * len(plan.finalists) + 1
        least_s = least_visits * self._visit_s(results) + self._verification_s(results)
        budget_s = self._search.time_budget_s
        share_s = max(CONFIRMATION_BUDGET_SHARE * budget_s, least_s)
        reserve_s = min(needed_s, share_s, MAX_CONFIRMATION_SHARE * budget_s)
        return max(reserve_s - self._store.confirmation_spent_s, 0.0)

    def left_s(self) -> float | None:
        """Return the seconds until the expected end of the run; None if nothing limits them.

        By the time budget, and by the trials that are left and the confirmation.
        """
        results = self._store.results
        left_s = [] if self._search.time_budget_s is None else [self._remaining_s]
        if results:
            trials_s = (self._max_trials - self._counted_trials(results)) * self._trial_s(results)
            left_s.append(trials_s + self._confirmation_reserve_s(results))
        return max(min(left_s), 0.0) if left_s else None

    def confirmation_end_s(self, step: Step) -> float | None:
        """Return the seconds until the expected end of the run from this step on."""
        results = self._store.results
        if step.is_verification:
            return min(self.expected_s(step) + self._curves_s(results), self._remaining_s)
        limit_s = self._confirmation_left_s(results) + self._verification_s(results)
        return max(min(limit_s, self._remaining_s), 0.0)

    def may_start_trial(self, running: int = 0) -> bool:
        """Return whether another trial may start; set `reason`, and `failed`, if not.

        Args:
            running: the number of trials in progress.
        """
        results = self._store.results
        if self.interrupted.is_set():
            self.reason = INTERRUPTED
        elif reference := self._failed_reference(results):
            self.failed = True
            self.reason = f"the {reference.origin} configuration cannot serve: {reference.cause}"
        elif end_reason := self._store.search_end_reason or self._target_or_patience(results):
            self.reason = end_reason
        elif self._is_improvement_unlikely():
            self.reason = self._unlikely_reason()
        elif running + self._counted_trials(results) >= self._max_trials:
            self.reason = f"all {self._max_trials} trials were run"
        elif self._remaining_s - self._confirmation_reserve_s(results) < self._trial_s(results):
            self.reason = self._no_time_reason(results)
        else:
            return True
        return False

    def may_probe(self, running: int = 0) -> bool:
        """Return whether the next trial may probe other configurations in its server.

        Only if there is time for one more trial, which what is observed guides.

        Args:
            running: the number of trials in progress.
        """
        results = self._store.results
        if not self._search.probes:
            return False
        trials_left = self._max_trials - self._counted_trials(results) - running
        left_s = self._remaining_s - self._confirmation_reserve_s(results)
        return trials_left > 1 and left_s >= 2 * self._trial_s(results) + PROBES_S

    def _counted_trials(self, results: list[TrialResult]) -> int:
        """Return the number of trials, without failures of the host.

        In a search, only a limited number of them is left out: it must end on a broken host too.
        """
        faults = len([r for r in results if r.host_fault])
        uncounted = faults if self._spec.sweep else min(faults, _UNCOUNTED_HOST_FAULTS)
        return len(results) - uncounted

    def _target_or_patience(self, results: list[TrialResult]) -> str | None:
        """Return the reason to stop if the target is reached or the patience is exhausted."""
        best = self._store.incumbent_rps or 0.0
        target, patience = self._search.target_rps, self._search.patience
        if target is not None and best >= target:
            return f"the target of {target:g} rps was reached: {best:.1f} rps"
        since = trials_since_improvement(results, self._width, self._store.objective)
        if patience is not None and since >= patience:
            return f"no configuration was better, beyond the noise, in {patience} trials"
        return None

    def _is_improvement_unlikely(self) -> bool:
        limit = self._search.min_improvement_probability
        probability = self._store.improvement_probability() if limit else None
        return probability is not None and probability < limit

    def _unlikely_reason(self) -> str:
        """Return why the search ends although time is left."""
        objective = self._store.objective
        share = format_percent(self._search.min_improvement_probability)
        if self._store.best is None:
            return f"a configuration that meets the limits is unlikely (probability below {share})"
        least = format_percent(WORTHWHILE[objective.kind])
        better = {
            "rate": f"more than {least} faster",
            "latency": f"better by more than {least} of the latency",
            "footprint": f"smaller by more than {least}",
        }[objective.kind]
        return f"another configuration is unlikely to be {better} (probability below {share})"

    def _failed_reference(self, results: list[TrialResult]) -> TrialResult | None:
        """Return the failure of the reference if it failed in every attempt.

        A failure of the host must repeat. A failure for lack of memory does not count, since a
        smaller configuration may serve.
        """
        attempts = [r for r in results if r.origin is self._reference_origin]
        failed = [r for r in attempts if r.state is TrialState.FAILED and not r.capacity_rps]
        if not failed or len(failed) < len(attempts) or is_memory(failed[-1].failure):
            return None
        return failed[-1] if len(failed) > 1 or not failed[0].host_fault else None

    @staticmethod
    def _trial_s(results: list[TrialResult]) -> float:
        """Return the expected duration of the next trial, seconds.

        A reference may be much slower than what is tried after it.
        """
        others = [r for r in results if not r.origin.is_reference]
        durations_s = sorted(r.duration_s for r in others or results)
        return durations_s[int(_DURATION_QUANTILE * len(durations_s))] if durations_s else 0.0

    def _no_time_reason(self, results: list[TrialResult]) -> str:
        """Return why the time budget permits no other trial, with the figures."""
        budget_s, trial_s = self._search.time_budget_s or 0.0, self._trial_s(results)
        left_s, reserve_s = max(self._remaining_s, 0.0), self._confirmation_reserve_s(results)
        if left_s < 1.0:
            return f"the time budget of {budget_s:.0f} s is spent"
        kept = f", and {reserve_s:.0f} s are kept for the confirmation" if reserve_s >= 1.0 else ""
        return (
            f"of the time budget of {budget_s:.0f} s, {left_s:.0f} s are left, but another trial "
            f"takes about {trial_s:.0f} s{kept}"
        )


def trials_since_improvement(
    results: list[TrialResult], width: float, objective: Objective = RATE
) -> int:
    """Return the number of trials since one exceeded the best before it by more than `width`.

    Only trials that try a new configuration count: warm starts, recommended starting points and
    sampled ones.

    Args:
        width: the relative width of a rate's bounds.
    """
    since, best = 0, 0.0
    for result in results:
        if result.origin is TrialOrigin.INCUMBENT or result.host_fault:
            continue
        figures = Figures.of([result])
        score = 0.0 if objective.shortfalls(figures) else objective.score(figures)
        if score > (1 + width) * best:
            since, best = 0, score
        elif result.origin in (
            TrialOrigin.WARM_START,
            TrialOrigin.RECOMMENDED,
            TrialOrigin.SAMPLED,
        ):
            since += 1
    return since


def confirmation_plan(
    spec: StudySpec, results: list[TrialResult], nominated: Sequence[str] = ()
) -> Plan | None:
    """Return the plan of the confirmation; None if there is nothing to confirm.

    Args:
        nominated: digests of the configurations to confirm first; see `finalists`.
    """
    reference = reference_of(results)
    if spec.confirm is None or not spec.confirmation_rounds or reference is None:
        return None
    objective = Objective.of(spec.goal)
    if not finalists(results, 1, objective=objective):
        return None
    return Plan.of(results, reference, spec.confirm.finalists, nominated, objective)
