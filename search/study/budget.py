"""Decide whether another trial or another round of the confirmation may start."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from search.confirmation.confirmation import Confirmation
from search.confirmation.plan import Plan, plan_confirmation
from search.confirmation.race import RaceRules
from search.confirmation.steps import Step, next_curves, next_round, verifications
from search.confirmation.visits import StoredVisits
from search.spec.schema import StudySpec
from search.study.confirmation_time import LEAST_ROUNDS, ConfirmationTime
from search.study.stop_rules import StopRules
from search.study.store import StudyStore
from search.trial.result import TrialResult

INTERRUPTED = "it was interrupted"
#: Rounds of the confirmation to which its time limit does not apply.
MIN_ROUNDS = 3
#: Expected duration of the probes of a trial, seconds.
PROBES_S = 8.0
#: Quantile of the trials' durations that the next trial is expected to take.
_DURATION_QUANTILE = 0.8

ReadConfirmation = Callable[[StoredVisits, Plan], Confirmation]


class Budget:
    """Whether the limits of a run allow another trial or another step of the confirmation.

    Args:
        store: with the results so far; the time they took counts.
        read: returns what the stored measurements of a confirmation's plan show; without a
            prior if None.

    Attributes:
        confirmation_time: the expected durations of the confirmation's measurements.
        interrupted: set when the run is to stop.
        failed: whether the reference configuration cannot serve.
        reason: why the last call of `may_start_trial` returned False.
    """

    def __init__(self, spec: StudySpec, store: StudyStore, read: ReadConfirmation | None = None):
        rules = RaceRules(spec.confirmation_rounds)
        self._spec = spec
        self._read = read or (lambda stored, plan: Confirmation.read(stored, plan, rules))
        self._search = spec.search
        # A sweep measures all its points; the limit of a search does not apply.
        self._max_trials = len(spec.points()) if spec.sweep else spec.search.trials
        self._started_s = time.monotonic() - store.spent_s
        self._store = store
        self._stop_rules = StopRules(spec, store)
        self.confirmation_time = ConfirmationTime(spec, store)
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
        plan = plan_confirmation(self._spec, self._store.results, self._store.nominated)
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

        It may exceed the budget by no more than half a measurement; a verification with a latency
        curve by half a visit, since it can do without; a latency curve on which nothing depends
        may not exceed it.
        """
        if self.interrupted.is_set():
            return False
        expected = self.confirmation_time
        if step.is_curve:
            needed_s = sum(expected.curve_s(request) for request in step.requests)
            return math.isfinite(needed_s) and self._remaining_s >= needed_s
        if step.is_verification:
            last = step.requests[-1]
            last_s = expected.visit_s() if last.latency_curve else expected.verification_s(last)
            return self._remaining_s >= expected.expected_s(step) - 0.5 * last_s
        needed_s = (len(step.requests) - 0.5) * expected.visit_s()
        # Without these rounds nothing is confirmed; without a latency curve, less is known.
        kept_s = expected.verification_s(has_curve=step.round_number >= LEAST_ROUNDS)
        if step.round_number >= MIN_ROUNDS:
            if expected.left_s() < needed_s:
                return False
            kept_s += expected.curves_s(self.confirmation())
        return self._remaining_s >= needed_s + kept_s

    def left_s(self) -> float | None:
        """Return the seconds until the expected end of the run; None if nothing limits them.

        By the time budget, and by the trials that are left and the confirmation.
        """
        results = self._store.results
        left_s = [] if self._search.time_budget_s is None else [self._remaining_s]
        if results:
            trials_left = self._max_trials - self._stop_rules.counted_trials(results)
            trials_s = trials_left * self._trial_s(results)
            left_s.append(trials_s + self.confirmation_time.reserve_s())
        return max(min(left_s), 0.0) if left_s else None

    def confirmation_end_s(self, step: Step) -> float | None:
        """Return the seconds until the expected end of the run from this step on."""
        expected = self.confirmation_time
        if step.is_verification:
            curves_s = expected.curves_s(self.confirmation())
            return min(expected.expected_s(step) + curves_s, self._remaining_s)
        limit_s = expected.left_s() + expected.verification_s()
        return max(min(limit_s, self._remaining_s), 0.0)

    def may_start_trial(self, running: int = 0) -> bool:
        """Return whether another trial may start; set `reason`, and `failed`, if not.

        Args:
            running: the number of trials in progress.
        """
        results = self._store.results
        if self.interrupted.is_set():
            self.reason = INTERRUPTED
        elif reference := self._stop_rules.failed_reference(results):
            self.failed = True
            self.reason = f"the {reference.origin} configuration cannot serve: {reference.cause}"
        elif end_reason := self._stop_rules.end_reason(results):
            self.reason = end_reason
        elif running + self._stop_rules.counted_trials(results) >= self._max_trials:
            self.reason = f"all {self._max_trials} trials were run"
        elif self._remaining_s - self.confirmation_time.reserve_s() < self._trial_s(results):
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
        trials_left = self._max_trials - self._stop_rules.counted_trials(results) - running
        left_s = self._remaining_s - self.confirmation_time.reserve_s()
        return trials_left > 1 and left_s >= 2 * self._trial_s(results) + PROBES_S

    @staticmethod
    def _trial_s(results: list[TrialResult]) -> float:
        """Return the expected duration of the next trial, seconds.

        A reference may be much slower than what is tried after it, and then takes long to bracket.
        """
        durations_s = sorted(r.duration_s for r in results if not r.origin.is_reference)
        durations_s = durations_s or sorted(
            r.duration_s - r.timing.phases_s.get("bracketing", 0.0) for r in results
        )
        return durations_s[int(_DURATION_QUANTILE * len(durations_s))] if durations_s else 0.0

    def _no_time_reason(self, results: list[TrialResult]) -> str:
        """Return why the time budget permits no other trial, with the figures."""
        budget_s, trial_s = self._search.time_budget_s or 0.0, self._trial_s(results)
        left_s, reserve_s = max(self._remaining_s, 0.0), self.confirmation_time.reserve_s()
        if left_s < 1.0:
            return f"the time budget of {budget_s:.0f} s is spent"
        kept = (
            f", of which {reserve_s:.0f} s are kept for the confirmation"
            if reserve_s >= 1.0
            else ""
        )
        return (
            f"another trial of about {trial_s:.0f} s no longer fits into the time budget: of "
            f"{budget_s:.0f} s, {left_s:.0f} s are left{kept}"
        )
