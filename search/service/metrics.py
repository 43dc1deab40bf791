"""The metrics of the service for Prometheus, read from the folders of its jobs at each scrape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from search.service.bounded_cache import BoundedCache
from search.service.jobs import Job, JobRecord, JobState, JobStore
from search.service.run_results import RunResults
from search.trial.objective import Objective
from search.trial.ranking import best_of
from search.trial.result import TrialResult, TrialState
from servetune.errors import FailureKind, ServetuneError

CONTENT_TYPE = CONTENT_TYPE_LATEST
#: Jobs that are over whose best rate is still shown; each is one time series.
_SHOWN_JOBS = 20
_MAX_CACHED = 1000


@dataclass
class _Totals:
    """The figures of one or more jobs; those of the best configuration are of one job."""

    states: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    trials: int = 0
    trial_s: float = 0.0
    best_rps: float | None = None
    best_p99_s: float | None = None
    best_memory_mb: float | None = None

    @classmethod
    def of(cls, results: list[TrialResult], objective: Objective) -> _Totals:
        best = best_of(results, objective)
        target = best.latency.target if best else None
        return cls(
            Counter(_label(result.state) for result in results),
            Counter(str(result.failure) for result in results if result.failure),
            len(results),
            sum(result.duration_s for result in results),
            best.sustained_rps if best else None,
            target.p99_s if target else None,
            best.server.peak_memory_mb if best else None,
        )

    def add(self, other: _Totals) -> None:
        self.states += other.states
        self.failures += other.failures
        self.trials += other.trials
        self.trial_s += other.trial_s


def _label(state: TrialState) -> str:
    return state.lower()


class JobMetrics(Collector):
    """Collects the metrics of all jobs. Not thread-safe."""

    def __init__(self, store: JobStore, results: RunResults):
        self._store, self._results = store, results
        self._ended: BoundedCache[tuple[str, float | None], _Totals] = BoundedCache(_MAX_CACHED)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """Return the metrics in Prometheus's text format."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Return nothing: the metrics are known at a scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        records = self._store.records()
        states = Counter(record.state for _, record in records)
        jobs = GaugeMetricFamily("servetune_jobs", "Jobs by state.", labels=["state"])
        for state in JobState:
            jobs.add_metric([state], states[state])
        yield jobs
        yield GaugeMetricFamily(
            "servetune_queue_length", "Jobs that wait to be started.", states[JobState.QUEUED]
        )
        durations_s = [
            record.ended_s - record.started_s
            for _, record in records
            if record.state.is_over and record.started_s and record.ended_s
        ]
        yield SummaryMetricFamily(
            "servetune_job_duration_seconds",
            "Duration of the jobs that are over.",
            count_value=len(durations_s),
            sum_value=sum(durations_s),
        )
        yield from self._trial_metrics(records)

    def _trial_metrics(self, records: list[tuple[Job, JobRecord]]) -> Iterator[Metric]:
        totals = _Totals()
        best = GaugeMetricFamily(
            "servetune_job_best_rps",
            "Sustained rate of a job's best configuration, in requests per second.",
            labels=["job", "name"],
        )
        p99 = GaugeMetricFamily(
            "servetune_job_best_p99_seconds",
            "p99 latency of a job's best configuration at goal.for_rps, in seconds.",
            labels=["job", "name"],
        )
        memory = GaugeMetricFamily(
            "servetune_job_best_memory_bytes",
            "Peak memory of a job's best configuration, in bytes.",
            labels=["job", "name"],
        )
        ended = [job.id for job, record in records if record.state.is_over]
        hidden = set(ended[:-_SHOWN_JOBS])
        for job, record in records:
            of_job = self._totals_of(job, record)
            totals.add(of_job)
            if job.id in hidden:
                continue
            for family, value in (
                (best, of_job.best_rps),
                (p99, of_job.best_p99_s),
                (memory, (of_job.best_memory_mb or 0) * 2**20),
            ):
                if value:
                    family.add_metric([job.id, record.name], value)
        trials = CounterMetricFamily("servetune_trials", "Trials by state.", labels=["state"])
        for state in map(_label, TrialState):
            trials.add_metric([state], totals.states[state])
        failures = CounterMetricFamily(
            "servetune_trial_failures", "Failed trials by kind of failure.", labels=["kind"]
        )
        for kind in FailureKind:
            failures.add_metric([kind], totals.failures[kind])
        yield from (best, p99, memory, trials, failures)
        yield SummaryMetricFamily(
            "servetune_trial_duration_seconds",
            "Duration of trials.",
            count_value=totals.trials,
            sum_value=totals.trial_s,
        )

    def _totals_of(self, job: Job, record: JobRecord) -> _Totals:
        key = (job.id, record.ended_s)
        if record.state.is_over and (known := self._ended.get(key)) is not None:
            return known
        try:
            run = job.run()
            objective = Objective.from_spec(run.specified()) if run else Objective()
            totals = _Totals.of(self._results.read(run), objective)
        except (ServetuneError, OSError, ValueError):
            totals = _Totals()  # The list of jobs shows what is damaged.
        return self._ended.put(key, totals) if record.state.is_over else totals
