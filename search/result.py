"""What a trial came to: the record that the study, the files and the reports share. Pure."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from statistics import median
from typing import Any, Self

from loadgen.measurement import Measurement
from loadgen.rate.result import Probe, SustainedRate
from loadgen.rate.search import CAPACITY_MARGIN
from loadgen.rate.verdict import LIMITED, success_bound
from search.explain import explain
from search.loads import LoadResult, Offered
from serving.config import ServerConfig
from serving.metrics import ServerWindow

#: Others that take more of the host's CPU time make a figure doubtful.
MUCH_FOREIGN = 0.2
#: What a trial does, in order; a pruned one ends early.
PHASES = ("start", "warm-up", "incumbent probe", "narrowing", "stop")


class State(enum.StrEnum):
    """How a trial ended."""

    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAILED = "FAILED"


class Kind(enum.StrEnum):
    """Why a configuration was tried."""

    DEFAULT = "default"
    BASELINE = "baseline"
    WARM = "warm start"
    GUIDE = "guide"
    SAMPLED = "sampled"
    INCUMBENT = "incumbent"
    CONFIRMED = "confirmation"
    SWEEP = "sweep"


@dataclass(frozen=True)
class Task:
    """One configuration to be measured.

    incumbent_rps is the rate to beat; None for the configurations that everything is compared
    with, which are measured to the end however slow they are. known_rps is what was found before,
    common_rps the rate at which latencies are compared; None where neither is asked for.
    """

    number: int
    kind: Kind
    config: ServerConfig
    incumbent_rps: float | None = None
    known_rps: float | None = None
    common_rps: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {**asdict(self), "kind": str(self.kind), "config": self.config.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; whatever else lies beside is left out."""
        return cls(
            **{
                **_known(cls, data),
                "kind": Kind(data["kind"]),
                "config": ServerConfig(**data["config"]),
            }
        )


@dataclass(frozen=True)
class Seen:
    """What a window came to: offered (None in a closed loop), answered, failed, how late."""

    offered_rps: float | None
    answered_rps: float
    failed: int
    p99_s: float | None


@dataclass(frozen=True)
class Window:
    """One window as both sides saw it; server is None where it was too busy to tell.

    steal and foreign_cpu are the shares of the host's CPU time that the hypervisor took and that
    neither the server nor the load processes used.
    """

    measured: Measurement
    server: ServerWindow | None
    steal: float = 0.0
    foreign_cpu: float = 0.0


@dataclass(frozen=True)
class TrialResult:
    """One trial.

    Attributes:
        sustained_rps: the highest rate that passed; None unless COMPLETE.
        upper_rps: the lowest rate that did not pass, if any.
        capacity_rps: the closed loop's throughput, an estimate; None where nothing was served.
        width: the relative width that was gone for.
        cause: why the trial failed or was pruned; for a complete one why its search ended.
        host_fault: the failure was the host's, not the configuration's.
        p50_s, p99_s: latency from the due time at sustained_rps.
        zero_failures_of: requests at sustained_rps, none of which failed.
        success_bound: the success probability that these show at 95 % confidence.
        success_bound_by_batch: the same where failures come by the batch.
        scheduled, sent, succeeded: requests of all its windows at an offered rate.
        queue_s, inference_s, mean_batch_fill, busy_workers: the server's own account of the
            longest window at sustained_rps; where there is none, of the last one.
        steal, foreign_cpu: shares of the host's CPU time that the hypervisor took, and that
            others than the server and the load processes used, over all windows.
        doubts: what makes these figures less sure than they look, a sentence each.
        p99_excess: the least p99 latency of any window ÷ the goal's limit − 1; 0 without a limit.
        common_rps, common_p99_s, common_failed: the rate at which finalists are compared and, of
            its window of Poisson arrivals, the latency and the requests that failed.
        workers_ready, batch_capacity: workers that the server had, requests that they take at
            once.
        phases_s: seconds of each of PHASES that it went through.
        ready_s: the server's start. peak_rss_mb: of it and its workers. peak_gpu_mb: what it took
            of all GPUs' memory. duration_s: all of it.
        host: where it ran.
        workers: the processes under the JVM: how each was started, and the cores it may use.
        loads: of a sweep, what came of each load, in their order.
    """

    number: int
    kind: Kind
    config: ServerConfig
    state: State
    sustained_rps: float | None = None
    upper_rps: float | None = None
    capacity_rps: float | None = None
    width: float | None = None
    cause: str = ""
    host_fault: bool = False
    p50_s: float | None = None
    p99_s: float | None = None
    zero_failures_of: int = 0
    success_bound: float | None = None
    success_bound_by_batch: float | None = None
    scheduled: int = 0
    sent: int = 0
    succeeded: int = 0
    queue_s: float | None = None
    inference_s: float | None = None
    mean_batch_fill: float | None = None
    busy_workers: float | None = None
    steal: float | None = None
    foreign_cpu: float | None = None
    doubts: tuple[str, ...] = ()
    p99_excess: float = 0.0
    common_rps: float | None = None
    common_p99_s: float | None = None
    common_failed: int | None = None
    workers_ready: int | None = None
    batch_capacity: int | None = None
    ready_s: float | None = None
    peak_rss_mb: int | None = None
    peak_gpu_mb: int | None = None
    duration_s: float = 0.0
    phases_s: Mapping[str, float] = field(default_factory=dict)
    host: Mapping[str, Any] = field(default_factory=dict)
    workers: tuple[Mapping[str, Any], ...] = ()
    loads: tuple[LoadResult, ...] = ()

    @property
    def says_nothing(self) -> bool:
        """Whether it failed, and by no fault of the configuration."""
        return self.host_fault or self.cause.startswith(LIMITED)

    @property
    def why(self) -> tuple[str, ...]:
        """Why this configuration is slow or fast, as far as its server told; maybe nothing."""
        cores, workers = self.host.get("cores"), self.workers_ready
        window = None
        if self.queue_s is not None and self.inference_s is not None:
            window = ServerWindow(
                self.queue_s, self.inference_s, self.mean_batch_fill, self.busy_workers
            )
        if not cores or (window is None and not self.capacity_rps):
            return ()
        return explain(
            self.config,
            window,
            cores,
            self.sustained_rps,
            workers,
            self.batch_capacity // workers if workers and self.batch_capacity else None,
        )

    @property
    def where(self) -> str:
        """The host that it was measured on, by its address in a cluster."""
        return str(self.host.get("address") or self.host.get("host") or "")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {**asdict(self), "config": self.config.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; a field that an older record lacks has its default."""
        return cls(
            **{
                **_known(cls, data),
                "doubts": tuple(data.get("doubts", ())),
                "workers": tuple(data.get("workers", ())),
                "loads": tuple(LoadResult.from_dict(load) for load in data.get("loads", ())),
                "kind": Kind(data["kind"]),
                "state": State(data["state"]),
                "config": ServerConfig(**data["config"]),
            }
        )


def _known(cls: type[Task] | type[TrialResult], data: Mapping[str, Any]) -> dict[str, Any]:
    names = {f.name for f in fields(cls)}
    return {key: value for key, value in data.items() if key in names}


def probe_summary(probe: Probe) -> dict[str, Any]:
    """Plain JSON data of a probe, without its measurement."""
    return {"rate_rps": probe.rate_rps, "verdict": probe.verdict.value, "reason": probe.reason}


def summarise(
    task: Task, found: SustainedRate, windows: Sequence[Window], **measured: Any
) -> TrialResult:
    """Judge what a search for the rate has found.

    Args:
        task: what was measured.
        found: the search's result.
        windows: all that was measured, in order.
        measured: further fields of the result.
    """
    best = found.best
    if found.pruned is not None:
        state, cause = State.PRUNED, found.pruned
    elif best is not None:
        state, cause = State.COMPLETE, found.reason
    else:
        state, cause = State.FAILED, found.reason
    window = _telling(windows, best)
    fields_of_rate: dict[str, Any] = {}
    if state is State.COMPLETE and best is not None:
        fill = window.mean_batch_fill if window else None
        fields_of_rate = {
            "sustained_rps": found.lower_rps,
            "p50_s": best.measurement.latency.quantile(0.5),
            "p99_s": best.measurement.latency.quantile(0.99),
            "zero_failures_of": found.zero_failures_of,
            "success_bound": success_bound(found.zero_failures_of),
            "success_bound_by_batch": success_bound(found.zero_failures_of / max(fill or 1, 1)),
        }
    if (common := found.common) is not None:
        fields_of_rate |= {
            "common_rps": common.load.rate_rps,
            "common_p99_s": None if common.generator_limited else common.latency.quantile(0.99),
            "common_failed": common.scheduled - common.succeeded,
        }
    return TrialResult(
        task.number,
        task.kind,
        task.config,
        state,
        upper_rps=found.upper_rps,
        capacity_rps=found.capacity_rps,
        width=found.width,
        cause=cause,
        scheduled=sum(probe.measurement.scheduled for probe in found.probes),
        sent=sum(probe.measurement.sent for probe in found.probes),
        succeeded=sum(probe.measurement.succeeded for probe in found.probes),
        doubts=(*found.doubts, *_disturbed(windows)),
        p99_excess=found.p99_excess,
        steal=_mean_share(windows, "steal"),
        foreign_cpu=_mean_share(windows, "foreign_cpu"),
        **fields_of_rate,
        **(asdict(window) if window else {}),
        **measured,
    )


def _disturbed(windows: Sequence[Window]) -> list[str]:
    """What others took of the host while it was measured, where that is much."""
    foreign = _mean_share(windows, "foreign_cpu") or 0.0
    return [f"other processes took {foreign:.0%} of the CPU time"] * (foreign > MUCH_FOREIGN)


def sustained_result(
    offered: Offered, found: SustainedRate, windows: Sequence[Window]
) -> LoadResult:
    """What a search for the rate came to, as a load of a sweep."""
    best = found.best
    window = _telling(windows, best)
    latency = best.measurement.latency if best else None
    return LoadResult(
        offered.name,
        offered.kind,
        scheduled=sum(probe.measurement.scheduled for probe in found.probes),
        sent=sum(probe.measurement.sent for probe in found.probes),
        answered=sum(probe.measurement.succeeded for probe in found.probes),
        success_rate=1.0 if best else None,
        mean_latency_s=latency.mean() if latency else None,
        p50_s=latency.quantile(0.5) if latency else None,
        p95_s=latency.quantile(0.95) if latency else None,
        p99_s=latency.quantile(0.99) if latency else None,
        sustained_rps=None if found.reason.startswith(LIMITED) else found.lower_rps or 0.0,
        upper_rps=found.upper_rps,
        queue_s=window.queue_s if window else None,
        inference_s=window.inference_s if window else None,
        mean_batch_fill=window.mean_batch_fill if window else None,
        doubts=(*found.doubts, *_disturbed(windows), *(() if best else (found.reason,))),
    )


def _mean_share(windows: Sequence[Window], name: str) -> float | None:
    """The mean of a share over all windows, each counting by its length."""
    span_s = sum(window.measured.span_s for window in windows)
    if not span_s:
        return None
    shares = [float(getattr(window, name)) * window.measured.span_s for window in windows]
    return round(sum(shares) / span_s, 4)


def _telling(windows: Sequence[Window], best: Probe | None) -> ServerWindow | None:
    """The server's account of the best probe's window, or of the last one that it told of."""
    if best is not None:
        return next((w.server for w in windows if w.measured is best.measurement), None)
    return next((w.server for w in reversed(windows) if w.server), None)


def told_value(result: TrialResult, incumbent_rps: float, ratios: list[float]) -> float:
    """What the sampler hears of a trial: always finite, on the scale of sustained rates.

    A pruned trial counts by its capacity, in the proportion in which complete ones sustained
    theirs, and never as much as what it could not beat. So does one whose load could not be made:
    that is no fault of the configuration.

    Args:
        incumbent_rps: the rate that it was pruned against.
        ratios: sustained ÷ capacity of the complete trials so far.
    """
    match result.state:
        case State.COMPLETE:
            return result.sustained_rps or 0.0
        case _ if result.state is State.PRUNED or result.cause.startswith(LIMITED):
            # A starved closed loop may tell far too little: no measure for the others.
            ratio = min(median(ratios), CAPACITY_MARGIN) if ratios else 1.0
            below = incumbent_rps * (1 - (result.width or 0.0)) or math.inf
            return min((result.capacity_rps or 0.0) * ratio, below)
    return 0.0


def reference_of(results: list[TrialResult]) -> TrialResult | None:
    """What everything is compared with: the configuration in use, else TorchServe's default."""
    for kind in (Kind.BASELINE, Kind.DEFAULT):
        found = [r for r in results if r.kind is kind and not r.host_fault]
        if found:
            return found[-1]
    return None
