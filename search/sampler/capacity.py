"""A formula for the rate of a batch pipeline on shared cores. Pure.

The rate of the workers is workers × batch ÷ (work of a batch × time of a unit of work). The work is
1 + item cost × batch, in which an item costs more in batches that are large. The time follows
Amdahl's law in the threads, and grows if more threads than cores compute. A part of it needs no
core; an accelerator serves a few batches of that part at once. The front end has its own limit,
which is proportional to the threads of its smaller pool, and uses cores in proportion to the rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.sampler.features import Features, Floats

#: Mean and standard deviation of the normal prior of each parameter.
PRIORS = (
    (math.log(0.1), 2.0),  # log of a batch's cost per item ÷ its fixed cost
    (math.log(1e-4), 2.5),  # log of the growth of an item's cost with each item of its batch
    (math.log(0.02), 2.0),  # log of the growth of an item's cost in any batch of several
    (1.0, 1.5),  # logit of the share of the work that threads divide (Amdahl)
    (-0.7, 1.0),  # log of the penalty exponent for more threads than cores
    (-2.0, 2.0),  # logit of the share of the work that needs no core
    (math.log(8), 1.5),  # log of the number of batches that share takes at once (an accelerator)
    (math.log(100), 2.5),  # log of a front end thread's rate ÷ that of a worker without batches
    (0.5, 0.7),  # log of the rate of a thread of the client pool ÷ that of the other pool
)
#: Sharpness of the transition between the limits of the workers and of the front end.
_SHARPNESS = 6.0
#: Steps of the solution for the cores that the front end leaves, and the least share of them.
_ITERATIONS, _MIN_CORE_SHARE = 2, 0.1


@dataclass(frozen=True)
class Load:
    """Servers under load, one for each element of the arrays.

    Attributes:
        workers: busy at the same time.
        batch: requests in a batch.
        threads: of each worker.
        netty, client: threads of the two pools of the front end.
        cores: of the host.
    """

    workers: Floats
    batch: Floats
    threads: Floats
    netty: Floats
    client: Floats
    cores: int

    @classmethod
    def of(cls, f: Features) -> Load:
        """Return the load that keeps every worker busy with full batches."""
        return cls(f.workers, f.batch, f.threads, f.netty, f.client, f.cores)


def log_rate(parameters: Floats, load: Load) -> Floats:
    """Return the log of the rate up to a constant, shape (parameter vectors, servers).

    Args:
        parameters: shape (parameter vectors, at least len(PRIORS)).
    """
    return _limited(log_worker_rate(parameters, load), _log_front_rate(parameters, load))


def log_worker_rate(parameters: Floats, load: Load) -> Floats:
    """Return the log of the rate of the workers alone, up to the constant of `log_rate`.

    The front end uses cores in proportion to the rate, so the rate is the solution of an equation.
    """
    columns: Sequence[Floats] = [parameters[:, i, None] for i in range(7)]
    item, growth, several, parallel_logit, spin_log, idle_logit, streams_log = columns
    parallel, idle = _logistic(parallel_logit), _logistic(idle_logit)
    item_growth = 1 + np.exp(growth) * load.batch + np.exp(several) * (load.batch > 1)
    work = 1 + np.exp(item) * load.batch * item_growth
    computing_threads = np.minimum(load.threads, load.cores)
    computing = (1 - idle) * (1 - parallel + parallel / computing_threads)
    # Threads that wait for each other spin; a single thread does not.
    exponent = 1 + (load.threads > 1) * np.exp(spin_log)
    busy_threads = load.workers * load.threads * computing / (computing + idle)
    queueing = np.maximum(load.workers * idle / (computing + idle) / np.exp(streams_log), 1.0)
    uncontended = np.log(load.workers * load.batch / work)
    front_limit = _log_front_rate(parameters, load)
    # Cores that the front end uses for each unit of the rate.
    front_cores = np.exp(-parameters[:, 7, None]) * (1 + np.exp(-parameters[:, 8, None]))

    def rate_on(cores: Floats | int) -> Floats:
        contention = np.maximum(busy_threads / cores, 1.0) ** exponent
        rate: Floats = uncontended - np.log(computing * contention + idle * queueing)
        return rate

    rate = rate_on(load.cores)
    for _ in range(_ITERATIONS):
        used = np.exp(_limited(rate, front_limit)) * front_cores
        left = np.maximum(load.cores - used, _MIN_CORE_SHARE * load.cores)
        rate = (rate + rate_on(left)) / 2
    return rate


def _log_front_rate(parameters: Floats, load: Load) -> Floats:
    """Return the log of the limit of the front end, up to the constant of `log_rate`."""
    netty_log = np.log(np.minimum(load.netty, load.cores))
    client_log = np.log(np.minimum(load.client, load.cores)) + parameters[:, 8, None]
    return parameters[:, 7, None] + np.minimum(netty_log, client_log)


def _limited(workers: Floats, front_end: Floats) -> Floats:
    """Return the log of a smooth minimum of two rates."""
    rate: Floats = -np.logaddexp(-_SHARPNESS * workers, -_SHARPNESS * front_end) / _SHARPNESS
    return rate


def _logistic(logit: Floats) -> Floats:
    value: Floats = 1 / (1 + np.exp(-logit))
    return value
