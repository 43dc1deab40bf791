"""Why a configuration is slow or fast, in sentences that carry their figures. Pure."""

from __future__ import annotations

from search.spec.space import torchserve_defaults
from serving.config import THREAD_VARIABLES, ServerConfig
from serving.metrics import ServerWindow

#: From this share on batches are full, workers all at work.
FULL, BUSY = 0.9, 0.8


def explain(
    config: ServerConfig,
    window: ServerWindow | None,
    cores: int,
    rate_rps: float | None = None,
    workers: int | None = None,
    batch_size: int | None = None,
) -> tuple[str, ...]:
    """What the server's own account of a window says of its configuration.

    Args:
        config: what was served with; what it leaves unset is TorchServe's or torch's default.
        window: the account; None where the server told none.
        cores: of the host.
        rate_rps: the rate at which requests came.
        workers, batch_size: those that the server reported, where it did: an archive's own
            settings beat TorchServe's defaults.

    Returns:
        Sentences without a full stop; none where nothing is known.
    """
    settings = {**torchserve_defaults(cores), **config.to_dict()}
    workers = workers or settings["workers"]
    batch_size = batch_size or settings["batch_size"]
    delay_s = settings["max_batch_delay_ms"] / 1000
    busy = window.busy_workers if window else None
    told = (
        _batches(window, batch_size, delay_s, rate_rps),
        _cores(workers, busy, _threads(config, cores), cores),
        _queue(window, workers, delay_s if batch_size > 1 else 0.0),
        _idle(busy, workers),
    )
    return tuple(sentence for sentence in told if sentence)


def _batches(
    window: ServerWindow | None, batch_size: int, delay_s: float, rate_rps: float | None
) -> str | None:
    if batch_size == 1:
        return "without batches a worker takes one request at a time"
    if window is None or window.mean_batch_fill is None:
        return None
    holds = f"batches hold {_figure(window.mean_batch_fill)} of {batch_size}"
    if window.mean_batch_fill >= FULL * batch_size or rate_rps is None:
        return holds
    # A batch waits for the delay from its first request on, and that one counts in it.
    more = rate_rps * delay_s
    if more >= batch_size - 1:
        return holds
    return (
        f"{holds}: in the delay of {_time(delay_s)} only {_figure(more)} more come "
        f"at {_figure(rate_rps)} rps"
    )


def _cores(workers: int, busy: float | None, threads: int | None, cores: int) -> str | None:
    at_work = workers if busy is None else min(busy, workers)
    if threads is None or at_work * threads <= cores:
        return None
    both = f"{_count(workers, 'worker')} × {_count(threads, 'thread')}"
    return f"{both} are more than {_count(cores, 'core')} can run at once"


def _queue(window: ServerWindow | None, workers: int, delay_s: float) -> str | None:
    if window is None:
        return None
    work_s = window.inference_s - window.queue_s
    # A batch that waits for its delay looks the same: only more than that is a queue.
    if window.queue_s <= max(work_s, delay_s):
        return None
    waits = f"requests wait {_time(window.queue_s)} in the queue for {_time(work_s)} of work"
    if window.busy_workers is not None and window.busy_workers >= BUSY * workers:
        return f"{waits}: the workers are the limit"
    return waits


def _idle(busy: float | None, workers: int) -> str | None:
    if busy is None or busy >= BUSY * workers:
        return None
    if workers == 1:
        return f"the worker is idle {1 - busy:.0%} of the time"
    return f"{_figure(workers - busy)} of {workers} workers are idle"


def _threads(config: ServerConfig, cores: int) -> int | None:
    """A worker's threads, if known; MKL_NUM_THREADS wins where both variables are set."""
    variables = config.environment_variables()
    named = [variables[name] for name in THREAD_VARIABLES if name in variables]
    if not named:
        return cores
    return int(named[0]) if named[0].isdigit() else None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _figure(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
