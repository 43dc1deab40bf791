"""What the API answers, as its OpenAPI document describes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psutil
from pydantic import BaseModel

from search.service.jobs import Job, JobRecord, JobState
from search.study.intervals import mean_interval
from search.study.observer import summary_of
from search.study.ranking import best_of, reference_of
from search.study.reading import read_outcome
from search.study.run_folder import ResultReader, Run
from search.trial.result import TrialResult

T = TypeVar("T")

#: Of a log so much is shown.
_LOG_CHARACTERS = 1 << 15


class ErrorView(BaseModel):
    """Why a request was refused; of a specification, each problem with its path."""

    error: str
    problems: list[str] = []


class RateView(BaseModel):
    """A trial and what it sustains, requests per second."""

    number: int
    origin: str
    sustained_rps: float | None
    settings: dict[str, Any]


class ProgressView(BaseModel):
    """How far a job is.

    max_trials is the greatest number of trials; trial, phase and rate_rps say what happens now; of the
    confirmation, round counts from 0.
    """

    trials_done: int
    max_trials: int | None
    trial: int | None = None
    phase: str | None = None
    rate_rps: float | None = None
    round: int | None = None
    rounds: int | None = None
    time_budget_s: float | None = None


class JobView(BaseModel):
    """A job. queue_position counts from 1 while the job waits; times are seconds since 1970.

    ratio is the best's rate ÷ the baseline's; of a confirmed job, both are the confirmation's.
    events_from is the event behind which the present trial's events lie. links lead to other
    views of it that run at the moment.
    """

    id: str
    name: str
    kind: str
    state: JobState
    reason: str | None
    queue_position: int | None
    created_s: float
    started_s: float | None
    ended_s: float | None
    progress: ProgressView
    best: RateView | None
    baseline: RateView | None
    ratio: float | None
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
    duration_s: float
    cause: str


class TrialsView(BaseModel):
    """The finished trials, by number."""

    trials: list[TrialView]


class TrialDetailView(TrialView):
    """All that is known of a trial.

    Attributes:
        explanations: why the configuration is slow or fast.
        record: every figure, the server's own among them.
        config_properties, default_properties: its file and that of the run's first trial, which
            sets nothing, as text, to be compared; of a sweep the first trial is one of many.
        environment: the other half of the configuration.
        windows: offered and answered rate, latency quantiles, the server's account, in order.
        probes: the verdicts on those at an offered rate.
        log: the server's last lines.
    """

    explanations: list[str]
    record: dict[str, Any]
    config_properties: str
    default_properties: str
    environment: str
    windows: list[dict[str, Any]]
    probes: list[dict[str, Any]]
    log: str


class Views:
    """Makes views; what has not changed is not read again."""

    def __init__(self, links: Mapping[str, str]):
        self._links = links
        self._known: dict[tuple[str, Path], tuple[tuple[int, int], Any]] = {}
        self._results: dict[Path, ResultReader] = {}
        self._over: dict[str, JobView] = {}

    def results(self, run: Run | None) -> list[TrialResult]:
        """The finished trials."""
        if run is None:
            return []
        return self._results.setdefault(run.folder, ResultReader(run)).read()

    def _read(self, what: str, path: Path, read: Callable[[], T]) -> T | None:
        """What is read out of a file, once for each state of it; None where there is none."""
        try:
            stat = path.stat()
        except OSError:
            return None
        stamp = (stat.st_mtime_ns, stat.st_size)
        known = self._known.get((what, path))
        if known is None or known[0] != stamp:
            known = self._known[what, path] = stamp, read()
        found: T = known[1]
        return found

    def job(self, job: Job, queue_position: int | None = None) -> JobView:
        """The job now."""
        record, run = job.record(), job.run()
        links = {**self._links, **(links_of(run) if run else {})}
        view = self._over.get(job.id)
        # What is over stays as it is until it is resumed.
        if view is None or view.ended_s != record.ended_s or not record.state.is_over:
            view = self._over[job.id] = self._job(job, record, run)
        return view.model_copy(update={"queue_position": queue_position, "links": links})

    def _job(self, job: Job, record: JobRecord, run: Run | None) -> JobView:
        results = self.results(run)
        spec: Mapping[str, Any] = {}
        confirmed = None
        if run is not None:
            spec = self._read("spec", run.folder / "spec.yaml", run.specified) or {}
            if record.state.is_over and spec.get("confirm"):
                confirmed = confirmed_rates(run)
        best, baseline = confirmed or (_rate(best_of(results)), _rate(reference_of(results)))
        ratio = None
        if best and baseline and best.sustained_rps and baseline.sustained_rps:
            ratio = best.sustained_rps / baseline.sustained_rps
        now: dict[str, Any] = {}
        events_from = 0
        if not record.state.is_over:
            told = self._read("now", job.events.path, partial(_now, job))
            now, events_from = told or (now, events_from)
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
            progress=_progress(results, spec, now),
            best=best,
            baseline=baseline,
            ratio=ratio,
            confirmed=confirmed is not None,
            events_from=events_from,
            links={},
        )

    @staticmethod
    def trial(run: Run, result: TrialResult) -> TrialDetailView:
        """All that is known of a trial; what its folder has lost is empty."""
        folder = run.trial_folder(result.number)
        shown = ("goodput_rps", "scheduled", "succeeded", "errors", "latency_s", "server")
        windows = [
            {
                "offered_rps": window["schedule"].get("rate_rps"),
                **{name: window[name] for name in shown},
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


def _now(job: Job) -> tuple[dict[str, Any], int]:
    """What it does, and the event behind which the present trial's lie."""
    now: dict[str, Any] = {}
    before = begun = 0
    for event in job.events.tail():
        if event.kind in ("trial", "round"):
            begun = before
            now["round"] = event.data.get("round")
        elif event.kind == "phase":
            now["trial"] = event.data["number"]
            now["phase"], now["rate_rps"] = event.data["name"], event.data["rate_rps"]
        before = event.id
    return now, begun


def _progress(
    results: list[TrialResult], spec: Mapping[str, Any], now: Mapping[str, Any]
) -> ProgressView:
    search, confirm = spec.get("search") or {}, spec.get("confirm") or {}
    return ProgressView(
        trials_done=len(results),
        max_trials=None if spec.get("sweep") else search.get("trials"),
        rounds=confirm.get("rounds"),
        time_budget_s=search.get("time_budget_s"),
        **now,
    )


def confirmed_rates(run: Run) -> tuple[RateView, RateView | None] | None:
    """The confirmation's winner and its reference, with mean rates; None where there is none."""
    found = read_outcome(run)
    if found.confirmation is None or found.chosen is None:
        return None
    rounds, requests = found.confirmation.rounds, found.confirmation.plan.requests

    def rate(index: int) -> RateView:
        interval, served = mean_interval(rounds.positive_rates(index)), rounds.positive_rates(index)
        return RateView(
            number=requests[index].number,
            origin=requests[index].origin,
            sustained_rps=interval.mean if interval else (served[0] if served else None),
            settings=requests[index].config.to_dict(),
        )

    return rate(found.confirmation.winner), rate(0)


def links_of(run: Run) -> dict[str, str]:
    """The dashboards of a run that run at the moment, as `servetune dashboard` left word."""
    try:
        noted = json.loads((run.folder / "dashboards.json").read_text())
    except (OSError, ValueError):
        return {}
    return {name: each["url"] for name, each in noted.items() if psutil.pid_exists(each["pid"])}


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
    """A trial in a list."""
    return TrialView(**summary_of(result))
