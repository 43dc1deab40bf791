"""Explain why a configuration is slow or fast, in sentences with figures. Pure."""

from __future__ import annotations

from loadgen.formatting import format_percent
from serving.configuration.config import THREAD_VARIABLES, ServerConfig
from serving.configuration.defaults import torchserve_defaults
from serving.metrics import ServerWindow

#: Batches count as full from this share of the batch size.
_FULL_BATCH = 0.9
#: Workers count as busy from this share of all workers.
_BUSY_WORKERS = 0.8


def explain(
    config: ServerConfig,
    window: ServerWindow | None,
    cores: int,
    rate_rps: float | None = None,
    workers: int | None = None,
    batch_size: int | None = None,
    default_threads: int | None = None,
) -> tuple[str, ...]:
    """Explain the performance of a configuration by the server's metrics of a window.

    Args:
        config: the configuration; unset settings are TorchServe's or torch's defaults.
        window: the metrics; None if the server reported none.
        cores: of the host.
        rate_rps: offered rate in the window.
        workers, batch_size: as the server reported them, if known. Settings in the archive take
            precedence over TorchServe's defaults.
        default_threads: threads that torch starts in each worker by default; `cores` if None.

    Returns:
        Sentences without a full stop; none if nothing is known.
    """
    settings = {**torchserve_defaults(cores), **config.to_dict()}
    workers = workers or settings["workers"]
    batch_size = batch_size or settings["batch_size"]
    delay_s = settings["max_batch_delay_ms"] / 1000
    busy = window.busy_workers if window else None
    busy = None if busy is None else min(busy, workers)
    threads = _threads_per_worker(config, default_threads or cores)
    sentences = (
        _explain_batches(window, batch_size, delay_s, rate_rps),
        _explain_threads(workers, busy, threads, cores),
        _explain_queue(window, busy, workers, delay_s if batch_size > 1 else 0.0),
        _explain_idle_workers(busy, workers),
    )
    return tuple(sentence for sentence in sentences if sentence)


def _explain_batches(
    window: ServerWindow | None, batch_size: int, delay_s: float, rate_rps: float | None
) -> str | None:
    if batch_size == 1:
        return "with a batch size of 1, each worker handles one request at a time"
    if window is None or window.mean_batch_fill is None:
        return None
    fill = f"batches hold {_figure(window.mean_batch_fill)} of {batch_size} requests on average"
    if window.mean_batch_fill >= _FULL_BATCH * batch_size or rate_rps is None:
        return fill
    # The delay starts with the first request of a batch, so it only has to bring the others.
    arrivals = rate_rps * delay_s
    if arrivals >= batch_size - 1:
        return fill
    return (
        f"{fill}: at {_figure(rate_rps)} rps, only {_figure(arrivals)} more requests arrive "
        f"during the batch delay of {_time(delay_s)}"
    )


def _explain_threads(
    workers: int, busy: float | None, threads: int | None, cores: int
) -> str | None:
    active = workers if busy is None else busy
    if threads is None or active * threads <= cores:
        return None
    product = f"{_count(workers, 'worker')} × {_count(threads, 'thread')}"
    return f"{product} are more than {_count(cores, 'core')} can run at once"


def _explain_queue(
    window: ServerWindow | None, busy: float | None, workers: int, delay_s: float
) -> str | None:
    if window is None:
        return None
    work_s = window.inference_s - window.queue_s
    # A batch that waits for its delay shows the same metric. Only a longer wait is a queue.
    if window.queue_s <= max(work_s, delay_s):
        return None
    waits = (
        f"requests wait {_time(window.queue_s)} in the queue and take {_time(work_s)} to process"
    )
    if busy is not None and busy >= _BUSY_WORKERS * workers:
        return f"{waits}: the workers are the bottleneck"
    return waits


def _explain_idle_workers(busy: float | None, workers: int) -> str | None:
    if busy is None or busy >= _BUSY_WORKERS * workers:
        return None
    if workers == 1:
        return f"the worker is idle {format_percent(1 - busy)} of the time at this load"
    return f"{_figure(workers - busy)} of {workers} workers are idle on average at this load"


def _threads_per_worker(config: ServerConfig, default: int) -> int | None:
    """Return the threads of a worker, None if unknown."""
    is_set = bool(config.environment_variables().keys() & {*THREAD_VARIABLES})
    return config.threads if is_set else default


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _figure(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
