"""Derive the result of a trial from its measurements. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from loadgen.formatting import format_percent
from loadgen.measurement import Measurement
from loadgen.rate.result import Probe, StopReason, SustainedRate
from loadgen.rate.verdict import Verdict
from search.spec.sweep_loads import SweepLoad
from search.trial.background import background_records
from search.trial.load_result import LoadResult
from search.trial.mix import mix_records
from search.trial.observation import WindowObservation, observation_of
from search.trial.request import TrialRequest
from search.trial.result import (
    CurvePoint,
    HostRecord,
    LatencyRecord,
    RateRecord,
    ServerRecord,
    TargetRecord,
    TimingRecord,
    TrialResult,
    TrialState,
)
from servetune.errors import FailureKind
from serving.metrics import HandlerTime, ServerWindow

#: A trial warns if other processes used more than this share of the host's CPU time.
OTHER_CPU_LIMIT = 0.2


def probe_record(probe: Probe) -> dict[str, Any]:
    """Return a probe as plain JSON data, without its measurement."""
    return {"rate_rps": probe.rate_rps, "verdict": probe.verdict.value, "reason": probe.reason}


def judge_trial(
    request: TrialRequest,
    found: SustainedRate,
    windows: Sequence[Measurement],
    server: ServerRecord | None = None,
    host: HostRecord | None = None,
    timing: TimingRecord | None = None,
) -> TrialResult:
    """Return the result of a trial from what its rate search found.

    A trial that only estimates the capacity is COMPLETE without a sustained rate.

    Args:
        windows: all windows of the trial, in order.
        server: the facts of the server; its metrics are added.
        host: the facts of the host; its CPU shares are added.
    """
    best = found.best
    failure = None
    if found.pruned is not None:
        state, cause = TrialState.PRUNED, found.pruned
    elif best is not None or found.stop_reason is StopReason.ESTIMATED:
        state, cause = TrialState.COMPLETE, found.reason
    else:
        state, cause = TrialState.FAILED, found.reason
        failure = (
            FailureKind.GENERATOR_LIMITED if found.is_generator_limited else FailureKind.NO_RATE
        )
    sustained = best if state is TrialState.COMPLETE else None
    metrics = _server_metrics(windows, best)
    deciding = best.measurement if best else (None, *windows)[-1]
    return TrialResult(
        number=request.number,
        origin=request.origin,
        config=request.config,
        state=state,
        failure=failure,
        cause=cause,
        rate=_rate_record(found, sustained, metrics),
        latency=_latency_record(found, sustained),
        server=replace(
            with_metrics(server or ServerRecord(), metrics), handler_times=_handler_times(windows)
        ),
        host=with_cpu_shares(host or HostRecord(), windows),
        timing=timing or TimingRecord(),
        warnings=(*found.warnings, *_disturbances(windows)),
        background=background_records(deciding),
        mix=mix_records(deciding),
    )


def judge_load(load: SweepLoad, found: SustainedRate, windows: Sequence[Measurement]) -> LoadResult:
    """Return the result of a load of a sweep that is a rate search."""
    best = found.best
    metrics = _server_metrics(windows, best)
    latency = best.measurement.latency if best else None
    return LoadResult(
        load.name,
        load.kind,
        scheduled=sum(probe.measurement.scheduled for probe in found.probes),
        sent=sum(probe.measurement.sent for probe in found.probes),
        answered=sum(probe.measurement.succeeded for probe in found.probes),
        success_rate=1.0 if best else None,
        mean_latency_s=latency.mean() if latency else None,
        p50_s=latency.quantile(0.5) if latency else None,
        p95_s=latency.quantile(0.95) if latency else None,
        p99_s=latency.quantile(0.99) if latency else None,
        sustained_rps=None if found.is_generator_limited else found.lower_rps or 0.0,
        upper_rps=found.upper_rps,
        queue_s=metrics.queue_s if metrics else None,
        inference_s=metrics.inference_s if metrics else None,
        mean_batch_fill=metrics.mean_batch_fill if metrics else None,
        warnings=(*found.warnings, *_disturbances(windows), *(() if best else (found.reason,))),
    )


def judge_sweep(
    request: TrialRequest,
    loads: Sequence[LoadResult],
    server: ServerRecord,
    host: HostRecord,
    timing: TimingRecord,
) -> TrialResult:
    """Return the result of a trial of a sweep; it is COMPLETE if any request succeeded."""
    if any(load.answered for load in loads):
        return TrialResult(
            number=request.number,
            origin=request.origin,
            config=request.config,
            state=TrialState.COMPLETE,
            server=server,
            host=host,
            timing=timing,
            loads=tuple(loads),
        )
    causes = [cause for load in loads for cause in (*load.errors, *load.warnings)]
    reason = ", ".join(dict.fromkeys(causes)) or "no answer at all"
    failed = TrialResult.failed(
        request,
        FailureKind.NO_RATE,
        f"no request succeeded: {reason}",
        server=server,
        host=host,
        timing=timing,
    )
    return replace(failed, loads=tuple(loads))


def with_metrics(server: ServerRecord, metrics: ServerWindow | None) -> ServerRecord:
    """Return the record with TorchServe's own metrics of a window."""
    if metrics is None:
        return server
    busy, workers = metrics.busy_workers, server.workers_ready
    if busy is not None and workers is not None:
        # A call that began before the window counts as a whole.
        busy = min(busy, float(workers))
    return replace(
        server,
        queue_s=metrics.queue_s,
        inference_s=metrics.inference_s,
        mean_batch_fill=metrics.mean_batch_fill,
        busy_workers=busy,
    )


def with_cpu_shares(host: HostRecord, windows: Sequence[Measurement]) -> HostRecord:
    """Return the record with the mean CPU shares of these windows."""
    return HostRecord(
        facts=host.facts,
        steal=_mean_share(windows, lambda observed: observed.steal),
        other_cpu=_mean_share(windows, lambda observed: observed.other_cpu),
    )


def _rate_record(
    found: SustainedRate, sustained: Probe | None, metrics: ServerWindow | None
) -> RateRecord:
    batch = max((metrics.mean_batch_fill if metrics else None) or 1.0, 1.0)
    return RateRecord(
        sustained_rps=found.lower_rps if sustained else None,
        unlimited_rps=found.unlimited_rps,
        upper_rps=found.upper_rps,
        capacity_rps=found.capacity_rps,
        estimate=found.estimate,
        width=found.width,
        stop_reason=found.stop_reason,
        requests_without_failure=found.requests_without_failure if sustained else 0,
        success_bound=found.success_bound() if sustained else None,
        success_bound_by_batch=found.success_bound(batch) if sustained else None,
        scheduled=sum(probe.measurement.scheduled for probe in found.probes),
        sent=sum(probe.measurement.sent for probe in found.probes),
        succeeded=sum(probe.measurement.succeeded for probe in found.probes),
    )


def _latency_record(found: SustainedRate, sustained: Probe | None) -> LatencyRecord:
    latency = sustained.measurement.latency if sustained else None
    compared = found.comparison
    measurable = compared is not None and not compared.generator_limited
    return LatencyRecord(
        p50_s=latency.quantile(0.5) if latency else None,
        p90_s=latency.quantile(0.9) if latency else None,
        p95_s=latency.quantile(0.95) if latency else None,
        p99_s=latency.quantile(0.99) if latency else None,
        limit_excess=found.limit_excess,
        target=_target_record(found.target) if found.target else None,
        comparison_rps=compared.load.rate_rps if compared else None,
        comparison_p99_s=compared.latency.quantile(0.99) if compared and measurable else None,
        comparison_failed=compared.scheduled - compared.succeeded if compared else None,
        curve=tuple(_curve_point(share, window) for share, window in found.curve),
    )


def _target_record(target: Probe) -> TargetRecord:
    """Return the record of the window at `goal.for_rps`."""
    window = target.measurement

    def quantile(q: float) -> float | None:
        return None if window.generator_limited else window.latency.quantile(q)

    return TargetRecord(
        rate_rps=target.rate_rps,
        p50_s=quantile(0.5),
        p95_s=quantile(0.95),
        p99_s=quantile(0.99),
        failed=window.scheduled - window.succeeded,
        # With Poisson arrivals, a short window does not always show that the backlog is constant.
        is_served=target.verdict in (Verdict.PASS, Verdict.UNDECIDED),
        reason=target.reason,
    )


def _curve_point(share: float, window: Measurement) -> CurvePoint:
    def quantile(q: float) -> float | None:
        return None if window.generator_limited else window.latency.quantile(q)

    return CurvePoint(
        share=share,
        rate_rps=window.load.rate_rps or 0.0,
        p50_s=quantile(0.5),
        p90_s=quantile(0.9),
        p99_s=quantile(0.99),
        failed=window.scheduled - window.succeeded,
    )


def _handler_times(windows: Sequence[Measurement]) -> tuple[HandlerTime, ...]:
    """Return the duration of a batch in each window with the metrics of the server."""
    observations = [observation_of(window) for window in windows]
    served = [o.server for o in observations if o is not None and o.server is not None]
    return tuple(time for window in served if (time := window.handler_time) is not None)


def _disturbances(windows: Sequence[Measurement]) -> list[str]:
    """Return a warning if other processes used much of the host's CPU time."""
    other = _mean_share(windows, lambda observed: observed.other_cpu) or 0.0
    return [f"other processes used {format_percent(other)} of the CPU time"] * (
        other > OTHER_CPU_LIMIT
    )


def _mean_share(
    windows: Sequence[Measurement], share: Callable[[WindowObservation], float]
) -> float | None:
    """Return the mean of a share over all windows, weighted by their length."""
    observed = [(w.span_s, o) for w in windows if (o := observation_of(w)) is not None]
    total_s = sum(span_s for span_s, _ in observed)
    if not total_s:
        return None
    return round(sum(span_s * share(o) for span_s, o in observed) / total_s, 4)


def _server_metrics(windows: Sequence[Measurement], best: Probe | None) -> ServerWindow | None:
    """Return the metrics of the best probe's window, otherwise of the last window with metrics."""
    if best is not None:
        observed = observation_of(best.measurement)
        return observed.server if observed else None
    observations = [observation_of(window) for window in reversed(windows)]
    return next((o.server for o in observations if o is not None and o.server is not None), None)
