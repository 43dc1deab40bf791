"""Why a search ends before its time and its trials are used."""

from __future__ import annotations

from loadgen.formatting import format_percent, format_rps
from search.sampler.targets import WORTHWHILE
from search.spec.schema import StudySpec
from search.study.store import StudyStore
from search.trial.objective import Figures, Objective
from search.trial.ranking import RATE
from search.trial.request import TrialOrigin
from search.trial.result import TrialResult, TrialState
from servetune.errors import is_memory

#: Number of trials failed by the host that do not count as trials of a search.
_UNCOUNTED_HOST_FAULTS = 10


class StopRules:
    """The limits of a search beside its time.

    Args:
        store: with the results so far.
    """

    def __init__(self, spec: StudySpec, store: StudyStore):
        self._search, self._store = spec.search, store
        self._is_sweep, self._width = bool(spec.sweep), spec.goal.width
        self._reference_origin = (
            TrialOrigin.DEFAULT if spec.serving.baseline is None else TrialOrigin.BASELINE
        )

    def counted_trials(self, results: list[TrialResult]) -> int:
        """Return the number of trials, without failures of the host.

        In a search, only a limited number of them is left out: it must end on a broken host too.
        """
        faults = len([r for r in results if r.host_fault])
        uncounted = faults if self._is_sweep else min(faults, _UNCOUNTED_HOST_FAULTS)
        return len(results) - uncounted

    def failed_reference(self, results: list[TrialResult]) -> TrialResult | None:
        """Return the failure of the reference if it failed in every attempt.

        A failure of the host must repeat. A failure for lack of memory does not count, since a
        smaller configuration may serve.
        """
        attempts = [r for r in results if r.origin is self._reference_origin]
        failed = [r for r in attempts if r.state is TrialState.FAILED and not r.capacity_rps]
        if not failed or len(failed) < len(attempts) or is_memory(failed[-1].failure):
            return None
        return failed[-1] if len(failed) > 1 or not failed[0].host_fault else None

    def end_reason(self, results: list[TrialResult]) -> str | None:
        """Return why the search ends although time is left; None if it continues."""
        return (
            self._store.search_end_reason
            or self._target_or_patience(results)
            or self._unlikely_reason()
        )

    def _target_or_patience(self, results: list[TrialResult]) -> str | None:
        """Return the reason to stop if the target is reached or the patience is exhausted."""
        best = self._store.incumbent_rps or 0.0
        target, patience = self._search.target_rps, self._search.patience
        if target is not None and best >= target:
            return f"the target of {target:g} rps was reached: {format_rps(best)}"
        since = trials_since_improvement(results, self._width, self._store.objective)
        if patience is not None and since >= patience:
            return f"no configuration was better, beyond the noise, in {patience} trials"
        return None

    def _unlikely_reason(self) -> str | None:
        """Return the reason to stop if an improvement is unlikely."""
        limit = self._search.min_improvement_probability
        probability = self._store.improvement_probability() if limit else None
        if probability is None or probability >= limit:
            return None
        objective, share = self._store.objective, format_percent(limit)
        if self._store.best is None:
            return f"a configuration that meets the limits is unlikely (probability below {share})"
        least = format_percent(WORTHWHILE[objective.kind])
        better = {
            "rate": f"is more than {least} faster",
            "latency": f"lowers the p99 latency by more than {least}",
            "footprint": f"needs more than {least} less memory",
        }[objective.kind]
        return f"it is unlikely that another configuration {better} (probability below {share})"


def trials_since_improvement(
    results: list[TrialResult], width: float, objective: Objective = RATE
) -> int:
    """Return the number of trials since one exceeded the best before it by more than `width`.

    Only trials that try a new configuration count: warm starts, starting points of the guide and
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
            TrialOrigin.GUIDE,
            TrialOrigin.SAMPLED,
        ):
            since += 1
    return since
