"""The responses of the API; the OpenAPI document is generated from them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from search.service.jobs import JobState


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
        answer: the verdict of a job that is over, what to change, how certain that is, how many
            replicas a load needs and what limits the rate; empty in the list of jobs.
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
    answer: list[str] = []
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
        figures: the plots of the trial as Plotly JSON, by name: rates, latencies, phases.
        probes: the verdicts on the windows at an offered rate.
        log: the last lines of the server's log.
    """

    explanations: list[str]
    record: dict[str, Any]
    config_properties: str
    default_properties: str
    environment: str
    windows: list[dict[str, Any]]
    figures: dict[str, Any]
    probes: list[dict[str, Any]]
    log: str
