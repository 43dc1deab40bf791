"""Whether there is time, and reason, for another trial or another round of the confirmation."""

from __future__ import annotations

import threading
import time
from statistics import mean

from search.spec.schema import StudySpec
from search.study.confirm import Plan
from search.study.ranking import finalists, reference_of
from search.study.store import StudyStore
from search.trial.request import TrialOrigin
from search.trial.result import TrialResult, TrialState
from servetune.errors import is_memory

INTERRUPTED = "it was interrupted"
#: A confirmation's measurement starts from what is known: its share of a trial's time.
AGAIN = 0.8
#: The confirmation takes no more than this share of the whole time.
RESERVED = 0.6
#: So many trials that failed by the host's fault do not count as a search's.
_FORGIVEN = 10


class Budget:
    """Whether another trial, or a round of the confirmation, may start, and why not.

    Args:
        study: with what is measured already; the time that it took counts.
    """

    def __init__(self, spec: StudySpec, study: StudyStore):
        self._spec = spec
        self._search, self._width = spec.search, spec.goal.width
        # A sweep ends when all its points are measured, whatever a search would do.
        self._trials = len(spec.points()) if spec.sweep else spec.search.trials
        # Counted as if this driver had begun so much earlier.
        self._begun = time.monotonic() - study.spent_s
        self._judged_by = (
            TrialOrigin.DEFAULT if spec.serving.baseline is None else TrialOrigin.BASELINE
        )
        self._study = study
        self.interrupted = threading.Event()
        self.failed = False
        self.reason = "no configuration was found that had not been tried"

    @property
    def spent_s(self) -> float:
        """How long the run has taken, seconds."""
        return time.monotonic() - self._begun

    @property
    def _left_s(self) -> float:
        return (self._search.time_budget_s or float("inf")) - self.spent_s

    def unconfirmed(self) -> Plan | None:
        """The plan of the confirmation, where more of it is to be done and there is time."""
        plan = plan_of(self._spec, self._study.results)
        if plan is None or self.failed:
            return None
        missing = [n for n, left in enumerate(self._missing(plan)) if left]
        return plan if missing and self.has_time_for_round(plan, missing[0]) else None

    def _missing(self, plan: Plan) -> list[int]:
        """By round: how many measurements it lacks."""
        rounds = self._spec.confirm.rounds if self._spec.confirm else 0
        done = [self._study.confirmed(plan.name, number) for number in range(rounds)]
        return [len(plan.requests) - len(row) for row in done]

    def has_time_for_round(self, plan: Plan, number: int) -> bool:
        """Whether a round of the confirmation may begin, or go on."""
        before = [self._study.confirmed(plan.name, n).values() for n in range(number)]
        seconds = [sum(result.duration_s for result in row) for row in before]
        again_s = self._again_s(self._study.results)
        # The budget is kept within the length of one measurement.
        needed_s = max(seconds, default=len(plan.requests) * again_s) - again_s
        return not self.interrupted.is_set() and self._left_s >= needed_s

    @staticmethod
    def _again_s(results: list[TrialResult]) -> float:
        """What measuring a configuration again may take."""
        whole = [r.duration_s for r in results if r.state is TrialState.COMPLETE]
        return AGAIN * mean(whole) if whole else 0.0

    def _reserved_s(self, results: list[TrialResult]) -> float:
        """What of the time is still to be the confirmation's."""
        plan = plan_of(self._spec, results)
        if plan is None or self._search.time_budget_s is None:
            return 0.0
        wanted_s = sum(self._missing(plan)) * self._again_s(results)
        most_s = RESERVED * self._search.time_budget_s - self._study.confirmed_s
        return max(min(wanted_s, most_s), 0.0)

    def may_start(self, beside: int = 0) -> bool:
        """Whether another trial may start beside so many that run."""
        results = self._study.results
        if self.interrupted.is_set():
            self.reason = INTERRUPTED
        elif hopeless := self._hopeless(results):
            self.failed = True
            self.reason = f"the {hopeless.origin} configuration cannot serve: {hopeless.cause}"
        elif reached := self._study.searched or self._reached(results):
            self.reason = reached
        elif beside + self._counted(results) >= self._trials:
            self.reason = f"all {self._trials} trials were run"
        elif self._left_s - self._reserved_s(results) < self._typical_trial_s(results):
            self.reason = "the time budget has no room for another trial"
        else:
            return True
        return False

    def _counted(self, results: list[TrialResult]) -> int:
        """The trials that count; a host that is broken altogether must not go on for ever."""
        faults = len([r for r in results if r.host_fault])
        forgiven = faults if self._spec.sweep else min(faults, _FORGIVEN)
        return len(results) - forgiven

    def _reached(self, results: list[TrialResult]) -> str | None:
        """The target that was reached, or the patience that is over."""
        best = self._study.incumbent_rps or 0.0
        target, patience = self._search.target_rps, self._search.patience
        if target is not None and best >= target:
            return f"the target of {target:g} rps was reached: {best:.1f} rps"
        if patience is not None and trials_since_improvement(results, self._width) >= patience:
            return f"no configuration was better, beyond the noise, in {patience} trials"
        return None

    def _hopeless(self, results: list[TrialResult]) -> TrialResult | None:
        """What everything would be compared with, where it did not serve at all, tried again.

        A default that is too large for the host says nothing of what is smaller.
        """
        tried = [r for r in results if r.origin is self._judged_by]
        dead = [r for r in tried if r.state is TrialState.FAILED and not r.capacity_rps]
        if not dead or len(dead) < len(tried) or is_memory(dead[-1].failure):
            return None
        return dead[-1] if len(dead) > 1 or not dead[0].host_fault else None

    @staticmethod
    def _typical_trial_s(results: list[TrialResult]) -> float:
        """What the next trial may take: the budget is to be kept, not overrun by one."""
        durations = sorted(r.duration_s for r in results)
        return durations[int(0.8 * len(durations))] if durations else 0.0


def trials_since_improvement(results: list[TrialResult], width: float) -> int:
    """Trials since one was better than all before it by more than the width of a rate's bounds.

    What is measured again, and what everything is compared with, is no attempt at it.
    """
    since, record = 0, 0.0
    for result in results:
        if result.origin is TrialOrigin.INCUMBENT or result.host_fault:
            continue
        if (result.sustained_rps or 0.0) > (1 + width) * record:
            since, record = 0, result.sustained_rps or 0.0
        elif result.origin in (
            TrialOrigin.WARM_START,
            TrialOrigin.RECOMMENDED,
            TrialOrigin.SAMPLED,
        ):
            since += 1
    return since


def plan_of(spec: StudySpec, results: list[TrialResult]) -> Plan | None:
    """What is to be confirmed, if anything."""
    reference = reference_of(results)
    if spec.confirm is None or reference is None or not finalists(results, 1):
        return None
    return Plan.of(results, reference, spec.confirm.finalists)
