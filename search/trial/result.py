"""The result of a trial, as the study stores it and the reports read it. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from loadgen.rate.estimate import Estimate
from loadgen.rate.result import StopReason
from search.trial.background import BackgroundRecord
from search.trial.explain import explain
from search.trial.load_result import LoadResult
from search.trial.mix import MixRecord
from search.trial.prediction import PredictedRate
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.serializing import JsonConfig
from search.trial.server_probe import ServerProbeRecord
from servetune.errors import FailureKind
from serving.health import WorkerProcess
from serving.metrics import HandlerTime, ServerWindow

#: The phases of a trial, in order; `load` is a load of a sweep. A pruned trial skips later ones.
PHASES = ("start", "warm-up", "verification", "bracketing", "latency", "load", "probes", "stop")


class TrialState(enum.StrEnum):
    """How a trial ended."""

    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAILED = "FAILED"


@dataclass(frozen=True)
class RateRecord:
    """The outcome of a rate search.

    Attributes:
        sustained_rps: highest rate that passed; None unless the trial is COMPLETE. Without
            `goal.for_rps`, it meets the goal's limits of the latency.
        unlimited_rps: highest rate that passed whatever its latency; None if none did.
        upper_rps: lowest higher rate that did not pass; None without one.
        capacity_rps: throughput of the closed loop; 0 if nothing was served, None if unknown.
        estimate: the capacity by all windows in which the server was saturated; None without one.
        width: twice the overload that the windows at sustained_rps exclude with 95 % confidence,
            at least the width of the goal.
        stop_reason: why the search ended.
        requests_without_failure: number of requests at sustained_rps, in every window that the
            load generator did not limit; none of them failed.
        success_bound: lower bound of the success probability with 95 % confidence.
        success_bound_by_batch: the same bound if all requests of a batch fail together.
        scheduled, sent, succeeded: number of requests in all windows at an offered rate.
    """

    sustained_rps: float | None = None
    unlimited_rps: float | None = None
    upper_rps: float | None = None
    capacity_rps: float | None = None
    estimate: Estimate | None = None
    width: float | None = None
    stop_reason: StopReason | None = None
    requests_without_failure: int = 0
    success_bound: float | None = None
    success_bound_by_batch: float | None = None
    scheduled: int = 0
    sent: int = 0
    succeeded: int = 0


@dataclass(frozen=True)
class CurvePoint:
    """Latencies at a share of the sustained rate, with Poisson arrivals.

    Attributes:
        share: offered rate ÷ sustained rate.
        rate_rps: offered rate.
        p50_s, p90_s, p99_s: in seconds; None if the load generator was the limit.
        failed: number of requests without a correct answer in time.
    """

    share: float
    rate_rps: float
    p50_s: float | None
    p90_s: float | None
    p99_s: float | None
    failed: int


@dataclass(frozen=True)
class TargetRecord:
    """The window of Poisson arrivals at `goal.for_rps`.

    Attributes:
        rate_rps: offered rate.
        p50_s, p95_s, p99_s: in seconds; None if the load generator was the limit.
        failed: number of requests without a correct answer in time.
        is_served: whether none failed, and the backlog did not grow.
        reason: the reason for that.
    """

    rate_rps: float
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    failed: int
    is_served: bool
    reason: str


@dataclass(frozen=True)
class LatencyRecord:
    """Latencies from the due time, in seconds.

    Attributes:
        p50_s, p90_s, p95_s, p99_s: at the sustained rate.
        limit_excess: latency ÷ the limit of the goal − 1, in the window closest to the limits or
            in that at `goal.for_rps`; 0 without a limit.
        target: at `goal.for_rps`; None without it, or if the capacity is below it.
        comparison_rps: comparison rate of the finalists, with Poisson arrivals.
        comparison_p99_s: p99 at the comparison rate.
        comparison_failed: number of requests that failed at the comparison rate.
        curve: latencies at lower rates, by rate; empty unless they were asked for.
    """

    p50_s: float | None = None
    p90_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None
    limit_excess: float = 0.0
    target: TargetRecord | None = None
    comparison_rps: float | None = None
    comparison_p99_s: float | None = None
    comparison_failed: int | None = None
    curve: tuple[CurvePoint, ...] = ()


@dataclass(frozen=True)
class ServerRecord:
    """Facts and metrics of the server in a trial.

    Attributes:
        settings: the tuned model's settings as TorchServe described them, by name.
        other_models: those of the models that shared the host, by model.
        workers_ready: number of workers of the tuned model that became ready.
        batch_capacity: number of requests that these together accept at once.
        ready_s: time from the start until every worker was ready, in seconds.
        peak_memory_mb: peak memory of the server and its workers, in MiB; shared memory counts
            once (PSS).
        peak_gpu_mb: peak memory on all GPUs, in MiB.
        queue_s, inference_s, mean_batch_fill, busy_workers: TorchServe's metrics in the longest
            window at the sustained rate, otherwise in the last window; see `ServerWindow`.
        handler_times: duration of a batch in each window with metrics.
        processes: the worker processes.
    """

    settings: Mapping[str, int] = field(default_factory=dict)
    other_models: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    workers_ready: int | None = None
    batch_capacity: int | None = None
    ready_s: float | None = None
    peak_memory_mb: int | None = None
    peak_gpu_mb: int | None = None
    queue_s: float | None = None
    inference_s: float | None = None
    mean_batch_fill: float | None = None
    busy_workers: float | None = None
    handler_times: tuple[HandlerTime, ...] = ()
    processes: tuple[WorkerProcess, ...] = ()

    @property
    def window(self) -> ServerWindow | None:
        """TorchServe's metrics as a `ServerWindow`; None if it reported none."""
        if self.queue_s is None or self.inference_s is None:
            return None
        return ServerWindow(self.queue_s, self.inference_s, self.mean_batch_fill, self.busy_workers)


@dataclass(frozen=True)
class HostRecord:
    """The host of a trial.

    Attributes:
        facts: name, address in the cluster, processor, cores, memory, versions; `limits`, how
            the limits of the specification were applied.
        steal, other_cpu: see `CpuShares`; mean over all windows.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    steal: float | None = None
    other_cpu: float | None = None

    @property
    def name(self) -> str:
        """The address in the cluster, otherwise the host name."""
        return str(self.facts.get("address") or self.facts.get("host") or "")

    @property
    def cores(self) -> int | None:
        """Number of cores that the trial could use."""
        return self.facts.get("cores")


@dataclass(frozen=True)
class TimingRecord:
    """Durations in seconds.

    Attributes:
        duration_s: duration of the whole trial.
        phases_s: duration by phase, see `PHASES`.
    """

    duration_s: float = 0.0
    phases_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialResult:
    """The result of one trial.

    Attributes:
        failure: kind of failure; None unless the trial is FAILED.
        cause: why the trial failed or was pruned, or why its search stopped.
        host_fault: whether the host, not the configuration, caused the failure.
        warnings: reasons why the figures are less certain, one sentence each.
        loads: in a sweep, the result of each load, in order.
        background: what other models of the server answered meanwhile.
        mix: what each model of the mix answered; empty without a mix.
        predicted: the rate that was predicted before the trial; None without a prediction.
        server_probes: what the server showed of other configurations after the trial's own windows.
            They inform the sampler; no figure of this trial depends on them.
    """

    number: int
    origin: TrialOrigin
    config: JsonConfig
    state: TrialState
    failure: FailureKind | None = None
    cause: str = ""
    host_fault: bool = False
    rate: RateRecord = RateRecord()
    latency: LatencyRecord = LatencyRecord()
    server: ServerRecord = ServerRecord()
    host: HostRecord = field(default_factory=HostRecord)
    timing: TimingRecord = field(default_factory=TimingRecord)
    warnings: tuple[str, ...] = ()
    loads: tuple[LoadResult, ...] = ()
    background: tuple[BackgroundRecord, ...] = ()
    mix: tuple[MixRecord, ...] = ()
    predicted: PredictedRate | None = None
    server_probes: tuple[ServerProbeRecord, ...] = ()

    @classmethod
    def failed(
        cls,
        request: TrialRequest,
        failure: FailureKind,
        cause: str,
        host_fault: bool = False,
        server: ServerRecord | None = None,
        host: HostRecord | None = None,
        timing: TimingRecord | None = None,
    ) -> TrialResult:
        """Return the result of a trial that failed without a judgment."""
        return cls(
            number=request.number,
            origin=request.origin,
            config=request.config,
            state=TrialState.FAILED,
            failure=failure,
            cause=cause,
            host_fault=host_fault,
            server=server or ServerRecord(),
            host=host or HostRecord(),
            timing=timing or TimingRecord(),
        )

    @property
    def sustained_rps(self) -> float | None:
        """Shorthand for `rate.sustained_rps`."""
        return self.rate.sustained_rps

    @property
    def estimate(self) -> Estimate | None:
        """Shorthand for `rate.estimate`."""
        return self.rate.estimate

    @property
    def capacity_rps(self) -> float | None:
        """Shorthand for `rate.capacity_rps`."""
        return self.rate.capacity_rps

    @property
    def p99_s(self) -> float | None:
        """Shorthand for `latency.p99_s`."""
        return self.latency.p99_s

    @property
    def duration_s(self) -> float:
        """Shorthand for `timing.duration_s`."""
        return self.timing.duration_s

    @property
    def is_inconclusive(self) -> bool:
        """Whether the trial failed for a reason other than its configuration."""
        return self.host_fault or self.failure is FailureKind.GENERATOR_LIMITED

    @property
    def explanations(self) -> tuple[str, ...]:
        """Why this configuration is slow or fast; see `explain`."""
        cores, workers = self.host.cores, self.server.workers_ready
        batch_capacity = self.server.batch_capacity
        if not cores or (self.server.window is None and not self.capacity_rps):
            return ()
        return explain(
            self.config,
            self.server.window,
            cores,
            self.sustained_rps,
            workers,
            batch_capacity // workers if workers and batch_capacity else None,
            self.host.facts.get("affinity_cores"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        data: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return data

    @classmethod
    def process_lost(cls, request: TrialRequest) -> TrialResult:
        """Return the result of a trial whose process ended before it could report."""
        cause = f"{FailureKind.TRIAL_PROCESS_LOST}: it ended before it could report"
        return cls.failed(request, FailureKind.TRIAL_PROCESS_LOST, cause, host_fault=True)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrialResult:
        """Read what `to_dict` returned; other keys are ignored, missing ones have defaults."""
        return _ADAPTER.validate_python(data)


_ADAPTER = TypeAdapter(TrialResult)
