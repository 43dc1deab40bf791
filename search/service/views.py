"""The responses of the API; the OpenAPI document is generated from them."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from search.answer.gain import Gain, confirmed_rps, gain_of, search_gain
from search.service.jobs import Job, JobRecord, JobState
from search.study.estimates import REFERENCE
from search.study.observer import summary_of
from search.study.ranking import best_of, reference_of
from search.study.reading import read_outcome
from search.study.run_folder import ResultReader, Run
from search.trial.objective import Objective
from search.trial.result import TrialResult
from servetune.errors import ServetuneError
from serving.identity import is_alive

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

#: Entries that each cache keeps: of views of jobs, and of all trials of a run.
_MAX_JOBS, _MAX_RUNS = 1000, 50

#: Maximum length of a log in a response.
_LOG_CHARACTERS = 1 << 15


class FieldProblem(BaseModel):
    """One problem: its path in the specification, empty for the whole of it, and the message."""

    path: str
    message: str


class ErrorView(BaseModel):
    """Why a request was rejected.

    Attributes:
        problems: what is wrong with a submitted specification, one sentence each.
        fields: the same problems, each with its path.
    """

    error: str
    problems: list[str] = []
    fields: list[FieldProblem] = []


class CheckView(BaseModel):
    """Whether the fields of a specification are valid; its files are not read."""

    valid: bool


class DemoView(BaseModel):
    """A specification of the bundled model, in YAML."""

    specification: str


class WaitView(BaseModel):
    """A job that a queued job waits for."""

    id: str
    name: str
    state: JobState


class RateView(BaseModel):
    """A trial and its sustained rate, requests/s."""

    number: int
    origin: str
    sustained_rps: float | None
    settings: dict[str, Any]


class ProgressView(BaseModel):
    """The progress of a job.

    Attributes:
        max_trials: maximum number of trials; null for a sweep.
        trial, phase, rate_rps: the running trial, its phase, and the rate in requests/s.
        settings: those of the running trial.
        trial_left_s: expected seconds to the end of the running trial; null if unknown.
        round: the running round of the confirmation, from 0.
        rounds: maximum number of rounds of the confirmation; null without one.
        trying: what is being measured, and why.
        so_far: the best rate so far, compared with the reference.
        left_s: expected seconds to the end of the run; null if unknown.
        improvement_probability: that an untried configuration is more than 3 % faster; null if
            unknown.
    """

    trials_done: int
    max_trials: int | None
    trial: int | None = None
    phase: str | None = None
    rate_rps: float | None = None
    settings: dict[str, Any] | None = None
    trial_left_s: float | None = None
    round: int | None = None
    rounds: int | None = None
    time_budget_s: float | None = None
    trying: str | None = None
    so_far: str | None = None
    left_s: float | None = None
    improvement_probability: float | None = None


class JobView(BaseModel):
    """A job.

    Attributes:
        kind: search or sweep.
        queue_position: from 1 while the job waits, else null.
        waits_for: the jobs that run, and the first 20 that wait before a queued job.
        queue_problem: why the queue starts no job, such as a Ray that does not answer.
        created_s, started_s, ended_s: seconds since 1970.
        best, baseline: those of the confirmation if the job is confirmed.
        ratio: the rate of `best` ÷ the rate of `baseline`: the confirmation's, else the
            search's with a warning.
        ratio_low, ratio_high: its interval; see `search.answer.gain`.
        ratio_warnings: why the ratio is less certain than its interval shows.
        events_from: id of the event after which the running trial's events start.
        links: addresses of related pages by name.
    """

    id: str
    name: str
    kind: str
    state: JobState
    reason: str | None
    queue_position: int | None
    waits_for: list[WaitView] = []
    queue_problem: str | None = None
    created_s: float
    started_s: float | None
    ended_s: float | None
    progress: ProgressView
    best: RateView | None
    baseline: RateView | None
    ratio: float | None
    ratio_low: float | None = None
    ratio_high: float | None = None
    ratio_warnings: list[str] = []
    confirmed: bool
    events_from: int
    links: dict[str, str]


class JobsView(BaseModel):
    """All jobs, the newest first."""

    jobs: list[JobView]


class TrialView(BaseModel):
    """A trial in a list."""

    number: int
    origin: str
    state: str
    settings: dict[str, Any]
    sustained_rps: float | None
    upper_rps: float | None
    capacity_rps: float | None
    p99_s: float | None
    target_p99_s: float | None
    peak_memory_mb: int | None
    duration_s: float
    cause: str


class TrialsView(BaseModel):
    """The finished trials, by number."""

    trials: list[TrialView]


class TrialDetailView(TrialView):
    """A trial with its full record and its files.

    Attributes:
        explanations: why the configuration is slow or fast.
        record: every figure of the trial, including the server's metrics.
        config_properties: the trial's config.properties.
        default_properties: config.properties of the run's first trial, for comparison. In a
            search that trial sets nothing; in a sweep it is any of the points.
        environment: the trial's environment variables.
        windows: offered and answered rate, latency quantiles and server metrics, in order.
        probes: the verdicts on the windows at an offered rate.
        log: the last lines of the server's log.
    """

    explanations: list[str]
    record: dict[str, Any]
    config_properties: str
    default_properties: str
    environment: str
    windows: list[dict[str, Any]]
    probes: list[dict[str, Any]]
    log: str


class BoundedCache(Generic[K, T]):
    """A mapping that forgets the entry that was not used for the longest time."""

    def __init__(self, max_entries: int):
        self._max_entries = max_entries
        self._entries: OrderedDict[K, T] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> T | None:
        """Return an entry; None if it is missing."""
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)

    def put(self, key: K, value: T) -> T:
        """Add or replace an entry, and return it."""
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
        return value


class ViewBuilder:
    """Builds views; caches what it read until a file changes. Not thread-safe."""

    def __init__(
        self, links: Mapping[str, str], max_jobs: int = _MAX_JOBS, max_runs: int = _MAX_RUNS
    ):
        self._links = links
        self._parsed: BoundedCache[tuple[str, Path], tuple[tuple[int, int], Any]]
        self._parsed = BoundedCache(2 * max_jobs)
        self._readers: BoundedCache[Path, ResultReader] = BoundedCache(max_runs)
        self._ended_jobs: BoundedCache[str, JobView] = BoundedCache(max_jobs)

    def results(self, run: Run | None) -> list[TrialResult]:
        """Return the finished trials of a run."""
        if run is None:
            return []
        reader = self._readers.get(run.folder)
        return (reader or self._readers.put(run.folder, ResultReader(run))).read()

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

    def job(self, job: Job, queue_position: int | None = None) -> JobView:
        """Return the view of a job; what cannot be read is the reason of its end."""
        try:
            record = job.record()
        except ServetuneError as error:
            return _damaged_view(
                job, JobRecord(job.id, JobState.FAILED, 0.0, 0.0, ended_s=0.0), error
            )
        run = job.run()
        links = {**self._links, **(links_of(run) if run else {})}
        view = self._ended_jobs.get(job.id)
        # A job that is over does not change until it is resumed.
        if view is None or view.ended_s != record.ended_s or not record.state.is_over:
            try:
                view = self._build_job(job, record, run)
            except (ServetuneError, OSError, ValueError, KeyError, TypeError) as error:
                view = _damaged_view(job, record, error)
            if record.state.is_over:
                self._ended_jobs.put(job.id, view)
        return view.model_copy(update={"queue_position": queue_position, "links": links})

    def _build_job(self, job: Job, record: JobRecord, run: Run | None) -> JobView:
        results = self.results(run)
        spec: Mapping[str, Any] = {}
        confirmed = None
        if run is not None:
            spec = self._parse("spec", run.folder / "spec.yaml", run.specified) or {}
            has_rounds = bool((spec.get("confirm") or {}).get("rounds"))
            if record.state.is_over and has_rounds and not spec.get("sweep"):
                confirmed = confirmed_rates(run)
        if confirmed is None:
            chosen = best_of(results, Objective.from_spec(spec))
            reference = reference_of(results)
            best, baseline = _rate(chosen), _rate(reference)
            gain = None if spec.get("sweep") else search_gain(chosen, reference)
        else:
            best, baseline, gain = confirmed
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
            confirmed=confirmed is not None,
            events_from=events_from,
            links={},
        )

    @staticmethod
    def trial(run: Run, result: TrialResult) -> TrialDetailView:
        """Return the full view of a trial; missing files are empty texts."""
        folder = run.trial_folder(result.number)
        names = ("goodput_rps", "scheduled", "succeeded", "errors", "latency_s", "server")
        windows = [
            {
                "offered_rps": window["schedule"].get("rate_rps"),
                **{name: window[name] for name in names},
            }
            for window in run.windows(result.number)
        ]
        return TrialDetailView(
            **summary_of(result),
            explanations=list(result.explanations),
            record=result.to_dict(),
            config_properties=_text(folder / "config.properties"),
            default_properties=_text(run.trial_folder(0) / "config.properties"),
            environment=_text(folder / "environment"),
            windows=windows,
            probes=run.probes(result.number),
            log=_text(folder / "torchserve.log")[-_LOG_CHARACTERS:],
        )


def _damaged_view(job: Job, record: JobRecord, error: Exception) -> JobView:
    """Return the view of a job that cannot be read."""
    reasons = [text for text in (record.reason, str(error)) if text]
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


def confirmed_rates(run: Run) -> tuple[RateView, RateView | None, Gain | None] | None:
    """Return the confirmation's winner and reference, and the gain; None if unconfirmed.

    The rate of a configuration that the confirmation did not verify is that of the search.
    """
    outcome = read_outcome(run)
    confirmation = outcome.confirmation
    if confirmation is None or outcome.chosen is None:
        return None

    def view(index: int) -> RateView:
        request = confirmation.plan.requests[index]
        return RateView(
            number=request.number,
            origin=request.origin,
            sustained_rps=confirmed_rps(confirmation, index),
            settings=request.config.to_dict(),
        )

    return view(confirmation.winner), view(REFERENCE), gain_of(outcome)


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


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def trial_view(result: TrialResult) -> TrialView:
    """Return the view of a trial in a list."""
    return TrialView(**summary_of(result))
