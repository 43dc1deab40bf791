"""What limits the rate of a configuration, with the evidence and what would help. Pure."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadgen.formatting import format_percent
from search.trial.result import TrialResult, TrialState
from servetune.errors import is_memory
from serving.metrics import HandlerTime

#: Workers count as busy, and batches as full, from this share.
_BUSY, _FULL = 0.8, 0.9
#: Batches of similar size are this close; workers contend if a batch takes this much longer with
#: this many times the busy workers.
_SIMILAR_FILL, _SLOWER, _BUSIER = 1.25, 1.3, 1.5
#: Fills that differ by less than this show no fixed time of a batch.
_FILL_RANGE = 1.5
#: The front end matters from this share of the latency, other processes from this share of the CPU.
_FRONT_END_SHARE, _OTHER_CPU = 0.3, 0.15
#: Memory is short from this share of the host's.
_MEMORY_SHARE = 0.8


class Limit(enum.StrEnum):
    """What limits the rate of a server."""

    UNKNOWN = "unknown"
    FAILED = "failed"
    CONTENTION = "contention"
    SINGLE_REQUESTS = "single requests"
    HANDLER = "handler time"
    BATCH_DELAY = "batch delay"
    FRONT_END = "front end"
    OTHER_PROCESSES = "other processes"


@dataclass(frozen=True)
class Bottleneck:
    """What limits a configuration.

    Attributes:
        limit: the kind.
        sentence: in plain words, without a full stop.
        evidence: figures of the server and the host, without full stops.
        remedies: what would help next, the most promising first, without full stops.
    """

    limit: Limit
    sentence: str
    evidence: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()


def bottleneck_of(result: TrialResult) -> Bottleneck:
    """Return what limits the rate of a trial, by the window in which its server was most loaded."""
    if result.state is TrialState.FAILED:
        return _failed(result)
    loaded = _most_loaded(result)
    workers = result.server.workers_ready or result.config.workers
    if loaded is None or not workers:
        return Bottleneck(Limit.UNKNOWN, "TorchServe reported no metrics that show the limit")
    batch_size = _batch_size(result, workers)
    evidence = _evidence(result, loaded, workers, batch_size)
    if (other := _other_cpu(result)) > _OTHER_CPU:
        return Bottleneck(
            Limit.OTHER_PROCESSES,
            f"other processes took {format_percent(other)} of the CPU time from the server",
            evidence,
            ("measure again on an idle host: the rates are too low", *_handler_remedies(result)),
        )
    if (contention := _contention(result.server.handler_times)) is not None:
        return Bottleneck(
            Limit.CONTENTION,
            "the workers compete for the CPU cores and slow each other down",
            (contention, *evidence),
            (
                "fewer threads in each worker (mkl_threads), or fewer workers, so that workers × "
                "threads is not above the number of cores",
            ),
        )
    if loaded.busy_workers < _BUSY * workers:
        return _idle(result, loaded, batch_size, evidence)
    if batch_size == 1:
        return Bottleneck(
            Limit.SINGLE_REQUESTS,
            f"each of the {workers} workers is busy with one request at a time",
            evidence,
            ("a larger batch_size, if the handler takes less than twice as long for two",),
        )
    return Bottleneck(
        Limit.HANDLER,
        "the handler is the limit: every worker computes without a pause",
        evidence,
        (*_batch_remedies(result, loaded, batch_size), *_handler_remedies(result)),
    )


def _failed(result: TrialResult) -> Bottleneck:
    cause = result.cause.partition("\n")[0] or str(result.failure)
    if is_memory(result.failure):
        remedies = ("fewer workers or smaller batches, or more memory",)
        return Bottleneck(Limit.FAILED, f"it ran out of memory: {cause}", (), remedies)
    return Bottleneck(Limit.FAILED, f"it failed: {cause}")


def _idle(
    result: TrialResult, loaded: HandlerTime, batch_size: int, evidence: tuple[str, ...]
) -> Bottleneck:
    """Return why workers idle although the server is loaded."""
    delay_s = (result.config.max_batch_delay_ms or 0) / 1000
    if batch_size > 1 and loaded.batch_fill < _FULL * batch_size and delay_s:
        return Bottleneck(
            Limit.BATCH_DELAY,
            f"workers wait for batches to fill: up to {_time(delay_s)} for each batch",
            evidence,
            ("a smaller batch_size or a shorter max_batch_delay_ms",),
        )
    if (front_end_s := _front_end_s(result)) is not None:
        return Bottleneck(
            Limit.FRONT_END,
            f"TorchServe's front end takes {_time(front_end_s)} of each request, and the workers "
            "wait for it",
            evidence,
            ("more netty_threads, smaller requests, or several servers behind a balancer",),
        )
    return Bottleneck(
        Limit.UNKNOWN,
        "the workers are not busy, and no figure shows why",
        evidence,
        ("compare with other trials: the search found no setting that explains it",),
    )


def _most_loaded(result: TrialResult) -> HandlerTime | None:
    times = list(result.server.handler_times)
    if not times and result.server.window and result.server.window.handler_time:
        times = [result.server.window.handler_time]
    return max(times, key=lambda time: time.batch_fill * time.busy_workers, default=None)


def _batch_size(result: TrialResult, workers: int) -> int:
    if result.server.batch_capacity:
        return max(1, result.server.batch_capacity // workers)
    return result.config.batch_size or 1


def _evidence(
    result: TrialResult, loaded: HandlerTime, workers: int, batch_size: int
) -> tuple[str, ...]:
    """Return queue, batch fill, handler time, front end and memory, as far as they are known."""
    server, facts = result.server, result.host.facts
    busy = min(loaded.busy_workers, workers)
    lines = [
        f"handler: {_time(loaded.seconds)} for a batch of {_figure(loaded.batch_fill)}, "
        f"{_time(loaded.seconds / loaded.batch_fill)} for each request",
        f"workers: {_figure(busy)} of {workers} busy when the server is saturated",
        f"batches: {_figure(loaded.batch_fill)} of {batch_size} requests when the server is "
        "saturated",
    ]
    if server.queue_s is not None and server.inference_s is not None:
        lines.append(
            f"queue: {_time(server.queue_s)} of the {_time(server.inference_s)} that a request "
            f"spends in the server{' at the sustained rate' if result.sustained_rps else ''}"
        )
    if (front_end_s := _front_end_s(result)) is not None:
        lines.append(f"front end: {_time(front_end_s)} of the median latency")
    if server.peak_memory_mb is not None:
        total_mb = facts.get("memory_mb")
        share = (
            f", {format_percent(server.peak_memory_mb / total_mb)} of the host's"
            if total_mb
            else ""
        )
        lines.append(f"memory: {server.peak_memory_mb:,} MiB at its peak in this server{share}")
    if other := _other_cpu(result):
        lines.append(f"CPU: other processes and the hypervisor took {format_percent(other, 1)}")
    return tuple(lines)


def _contention(times: Sequence[HandlerTime]) -> str | None:
    """Return how much longer a batch takes while more workers are busy; None if it does not."""
    pairs = [
        (more, fewer)
        for more in times
        for fewer in times
        if more.busy_workers >= _BUSIER * fewer.busy_workers
        and max(more.batch_fill, fewer.batch_fill)
        <= _SIMILAR_FILL * min(more.batch_fill, fewer.batch_fill)
        and more.seconds > _SLOWER * fewer.seconds
    ]
    if not pairs:
        return None
    more, fewer = max(pairs, key=lambda pair: pair[0].seconds / pair[1].seconds)
    return (
        f"a batch of {_figure(more.batch_fill)} takes {_time(more.seconds)} while "
        f"{_figure(more.busy_workers)} workers are busy, and {_time(fewer.seconds)} while "
        f"{_figure(fewer.busy_workers)} {'is' if fewer.busy_workers < 1.05 else 'are'}"
    )


def _batch_remedies(result: TrialResult, loaded: HandlerTime, batch_size: int) -> tuple[str, ...]:
    """Return what larger batches could gain, by the fixed time of a batch."""
    fixed_s = _fixed_seconds(result.server.handler_times)
    if fixed_s is None:
        return ()
    share = fixed_s / loaded.seconds
    if share < 0.05:
        return ("larger batches would gain less than 5 %: the time is proportional to their size",)
    return (
        f"larger batches (now {batch_size}) would gain at most {format_percent(share)}: only that "
        f"share of the time of a batch of {_figure(loaded.batch_fill)} is the same for any size",
    )


def _fixed_seconds(times: Sequence[HandlerTime]) -> float | None:
    """Return the time of a batch that does not depend on its size, by least squares; else None."""
    fills = np.array([time.batch_fill for time in times])
    if len(fills) < 3 or fills.max() < _FILL_RANGE * fills.min():
        return None
    seconds = np.array([time.seconds for time in times])
    slope, intercept = np.polyfit(fills, seconds, 1)
    return float(max(intercept, 0.0)) if slope > 0 else None


def _handler_remedies(result: TrialResult) -> tuple[str, ...]:
    memory_mb, total_mb = result.server.peak_memory_mb, result.host.facts.get("memory_mb")
    remedies = [
        "a faster handler: a smaller or quantized model, or less work before and after it",
        "more or faster cores, or another replica: see the number of replicas above",
    ]
    if memory_mb and total_mb and memory_mb > _MEMORY_SHARE * total_mb:
        remedies.insert(0, "more memory: this configuration uses nearly all of it")
    return tuple(remedies)


def _front_end_s(result: TrialResult) -> float | None:
    """Return the part of the median latency outside of the server's own metrics, if it matters."""
    p50_s, inference_s = result.latency.p50_s, result.server.inference_s
    if p50_s is None or inference_s is None:
        return None
    outside_s = p50_s - inference_s
    return outside_s if outside_s > _FRONT_END_SHARE * p50_s else None


def _other_cpu(result: TrialResult) -> float:
    return (result.host.other_cpu or 0.0) + (result.host.steal or 0.0)


def _figure(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}".removesuffix(".0")


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
