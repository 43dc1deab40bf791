"""The responses that show jobs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from search.answer.gain import Gain, confirmed_rps, gain_of, search_gain
from search.confirmation.estimates import REFERENCE
from search.report.summary import answer_sentences
from search.service.bounded_cache import BoundedCache
from search.service.jobs import Job, JobRecord, JobState
from search.service.run_results import RunResults
from search.service.views import JobView, ProgressView, RateView
from search.study.outcome import Outcome
from search.study.reading import read_outcome
from search.study.run_folder import Run
from search.trial.objective import Objective
from search.trial.ranking import best_of, reference_of
from search.trial.result import TrialResult
from servetune.errors import ServetuneError
from serving.identity import is_alive

T = TypeVar("T")

#: Number of jobs whose views are kept.
_MAX_JOBS = 1000


class JobViews:
    """Builds the views of jobs; caches what it read until a file changes. Not thread-safe.

    Args:
        results: the trials of their runs.
        links: addresses of related pages by name, for every job.
        max_jobs: the number of jobs whose views are kept.
    """

    def __init__(self, results: RunResults, links: Mapping[str, str], max_jobs: int = _MAX_JOBS):
        self._results, self._links = results, links
        self._parsed: BoundedCache[tuple[str, Path], tuple[tuple[int, int], Any]]
        self._parsed = BoundedCache(2 * max_jobs)
        self._ended_jobs: BoundedCache[str, JobView] = BoundedCache(max_jobs)

    def view(self, job: Job, queue_position: int | None = None) -> JobView:
        """Return the view of a job; what cannot be read is the reason of its end."""
        try:
            return self._view(job, job.record(), queue_position)
        except Exception as error:  # One job must not hide the others of the list.
            record = JobRecord(job.id, JobState.FAILED, 0.0, 0.0, ended_s=0.0)
            return _damaged_view(job, record, error)

    def _view(self, job: Job, record: JobRecord, queue_position: int | None) -> JobView:
        run = job.run()
        links = {**self._links, **(links_of(run) if run else {})}
        view = self._ended_jobs.get(job.id)
        # A job that is over does not change until it is resumed.
        if view is None or view.ended_s != record.ended_s or not record.state.is_over:
            try:
                view = self._build_job(job, record, run)
            except Exception as error:  # Any file of the job may be damaged in any way.
                view = _damaged_view(job, record, error)
            if record.state.is_over:
                self._ended_jobs.put(job.id, view)
        return view.model_copy(update={"queue_position": queue_position, "links": links})

    def _parse(self, name: str, path: Path, parse: Callable[[], T]) -> T | None:
        """Return the result of `parse`, cached until the file changes; None without the file."""
        try:
            stat = path.stat()
        except OSError:
            return None
        version = (stat.st_mtime_ns, stat.st_size)
        cached = self._parsed.get((name, path))
        if cached is None or cached[0] != version:
            cached = self._parsed.put((name, path), (version, parse()))
        result: T = cached[1]
        return result

    def _build_job(self, job: Job, record: JobRecord, run: Run | None) -> JobView:
        results = self._results.read(run)
        spec: Mapping[str, Any] = {}
        if run is not None:
            spec = self._parse("spec", run.folder / "spec.yaml", run.specified) or {}
        is_confirmed, answer = False, list[str]()
        if run is not None and record.state.is_over and not spec.get("sweep"):
            outcome = read_outcome(run)
            best, baseline, gain, is_confirmed = ended_rates(outcome)
            answer = answer_sentences(outcome)
        else:
            chosen = best_of(results, Objective.from_spec(spec))
            reference = reference_of(results)
            best, baseline = _rate(chosen), _rate(reference)
            gain = None if spec.get("sweep") else search_gain(chosen, reference)
        current: dict[str, Any] = {}
        events_from = 0
        if not record.state.is_over:
            parsed = self._parse("current", job.events.path, partial(_current_step, job))
            current, events_from = parsed or (current, events_from)
        return JobView(
            id=job.id,
            name=record.name,
            kind="sweep" if spec.get("sweep") else "search",
            state=record.state,
            reason=record.reason,
            queue_position=None,
            created_s=record.created_s,
            started_s=record.started_s,
            ended_s=record.ended_s,
            progress=_progress(results, spec, current),
            best=best,
            baseline=baseline,
            ratio=gain.ratio.mean if gain else None,
            ratio_low=gain.ratio.low if gain else None,
            ratio_high=gain.ratio.high if gain else None,
            ratio_warnings=list(gain.warnings) if gain else [],
            answer=answer,
            confirmed=is_confirmed,
            events_from=events_from,
            links={},
        )


def _damaged_view(job: Job, record: JobRecord, error: Exception) -> JobView:
    """Return the view of a job that cannot be read."""
    problem = str(error)
    if not isinstance(error, (ServetuneError, OSError, ValueError)):
        problem = f"a file of the job is damaged: {type(error).__name__}: {error}"
    reasons = [text for text in (record.reason, problem) if text]
    return JobView(
        id=job.id,
        name=record.name,
        kind="search",
        state=record.state,
        reason="; ".join(reasons),
        queue_position=None,
        created_s=record.created_s,
        started_s=record.started_s,
        ended_s=record.ended_s,
        progress=ProgressView(trials_done=0, max_trials=None),
        best=None,
        baseline=None,
        ratio=None,
        confirmed=False,
        events_from=0,
        links={},
    )


_PROGRESS_FIELDS = ("trying", "so_far", "improvement_probability")


def _current_step(job: Job) -> tuple[dict[str, Any], int]:
    """Return the fields of `ProgressView` that events report, and the id that they follow."""
    step: dict[str, Any] = {}
    previous_id = events_from = 0
    for event in job.events.tail():
        if event.kind in ("trial", "round"):
            events_from = previous_id
            step["round"] = event.data.get("round")
            step["settings"] = event.data.get("settings")
        elif event.kind == "progress":
            step |= {name: event.data.get(name) for name in _PROGRESS_FIELDS}
            left_s = event.data.get("left_s")
            step["end_s"] = None if left_s is None else event.time_s + left_s
        elif event.kind == "phase":
            step["trial"] = event.data["number"]
            step["phase"], step["rate_rps"] = event.data["name"], event.data["rate_rps"]
            step["trial_left_s"] = event.data.get("left_s")
        previous_id = event.id
    return step, events_from


def _progress(
    results: list[TrialResult],
    spec: Mapping[str, Any],
    current: Mapping[str, Any],
) -> ProgressView:
    search, confirm = spec.get("search") or {}, spec.get("confirm") or {}
    step = dict(current)
    end_s = step.pop("end_s", None)
    return ProgressView(
        trials_done=len(results),
        max_trials=None if spec.get("sweep") else search.get("trials"),
        rounds=None if spec.get("sweep") else confirm.get("rounds") or None,
        time_budget_s=search.get("time_budget_s"),
        left_s=None if end_s is None else max(end_s - time.time(), 0.0),
        **step,
    )


def ended_rates(outcome: Outcome) -> tuple[RateView | None, RateView | None, Gain | None, bool]:
    """Return the recommended configuration, the reference, the gain, and whether it is confirmed.

    They are those of the report. The rate of a configuration that the confirmation did not verify
    is that of the search.
    """
    confirmation, gain = outcome.confirmation, gain_of(outcome)
    if confirmation is None or outcome.chosen is None:
        return _rate(outcome.chosen), _rate(outcome.reference), gain, False

    def view(index: int) -> RateView:
        request = confirmation.plan.requests[index]
        return RateView(
            number=request.number,
            origin=request.origin,
            sustained_rps=confirmed_rps(confirmation, index),
            settings=request.config.to_dict(),
        )

    return view(confirmation.winner), view(REFERENCE), gain, True


def links_of(run: Run) -> dict[str, str]:
    """Return the addresses of the dashboards that `servetune dashboard` runs for a run."""
    try:
        dashboards = json.loads((run.folder / "dashboards.json").read_text())
        return {
            name: dashboard["url"]
            for name, dashboard in dashboards.items()
            if is_alive(dashboard["process"])
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _rate(result: TrialResult | None) -> RateView | None:
    if result is None:
        return None
    return RateView(
        number=result.number,
        origin=result.origin,
        sustained_rps=result.sustained_rps,
        settings=result.config.to_dict(),
    )
