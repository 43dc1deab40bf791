"""The settings of a TorchServe that is not configured."""

from __future__ import annotations

#: Requests that wait for a worker before TorchServe refuses one.
DEFAULT_JOB_QUEUE_SIZE = 100


def torchserve_defaults(cores: int, threads: int | None = None) -> dict[str, int]:
    """Return the defaults of TorchServe 0.12.0 and torch on a host without a GPU.

    Args:
        cores: that the JVM counts, which respects a CPU quota.
        threads: that torch starts, which respects CPU affinity only; `cores` if None.
    """
    return {
        "workers": cores,
        "batch_size": 1,
        "max_batch_delay_ms": 100,
        "netty_threads": 2 * cores,
        "netty_client_threads": 2 * cores,
        "mkl_threads": threads or cores,
        "job_queue_size": DEFAULT_JOB_QUEUE_SIZE,
        "response_timeout_s": 120,
    }
