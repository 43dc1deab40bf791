"""Probes of a running server: what a trial observes of other configurations after its own windows.

TorchServe scales a model down in a moment, and a worker with fewer users than its batch size takes
smaller batches. Both show configurations that would need a restart otherwise. Pure.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

from loadgen.rate.estimate import Estimate
from serving.metrics import HandlerTime

#: Standard normal quantile of a two-sided 95 % interval.
_Z95 = 1.96


class ProbeKind(enum.StrEnum):
    """How a running server shows another configuration."""

    WORKERS = "fewer workers"
    BATCH = "smaller batches"


@dataclass(frozen=True)
class ServerProbe:
    """A configuration to observe in a server of another one.

    Attributes:
        workers: to scale down to; 1 for smaller batches, because a free worker among several takes
            whatever waits.
        batch_size: of the configuration; the number of users if it is smaller than the server's.
    """

    kind: ProbeKind
    workers: int
    batch_size: int


@dataclass(frozen=True)
class ServerProbeRecord:
    """The result of a probe.

    Attributes:
        kind, workers, batch_size: see `ServerProbe`.
        capacity: of the configuration; None if the probe has no result.
        handler_time: duration of a batch in the handler; None if the server reported none.
        duration_s: of the probe, seconds.
        problem: why there is no result; empty if there is one.
    """

    kind: ProbeKind
    workers: int
    batch_size: int
    capacity: Estimate | None = None
    handler_time: HandlerTime | None = None
    duration_s: float = 0.0
    problem: str = ""

    @property
    def has_result(self) -> bool:
        """Whether the capacity and its interval are finite, and the capacity is above 0."""
        found = self.capacity
        figures = (found.rps, found.low_rps, found.high_rps) if found else ()
        return found is not None and all(map(math.isfinite, figures)) and found.rps > 0

    @property
    def log_sd(self) -> float:
        """Standard deviation of the logarithm of the capacity within the probe."""
        return log_sd_of(self.capacity) if self.capacity else math.inf


def log_sd_of(estimate: Estimate) -> float:
    """Return the standard deviation of the logarithm of an estimate, by its interval."""
    return estimate.relative_error / _Z95


def in_order(probes: Sequence[ServerProbe]) -> list[ServerProbe]:
    """Return the probes with ever fewer workers, then smaller batches: scaling up takes seconds."""
    return sorted(set(probes), key=lambda p: (-p.workers, p.kind is ProbeKind.BATCH, -p.batch_size))


def batch_capacity_rps(
    batch_size: int, batch_s: float, full_batch: float, full_s: float, full_rps: float
) -> float:
    """Return the capacity of one worker with smaller batches, requests/s.

    A closed loop with fewer users than the batch size waits for the batch delay in every batch, so
    that its throughput is not that of a server with the smaller batch size. The time between two
    calls of the handler is known from full batches.

    Args:
        batch_size: of the smaller batches.
        batch_s: their duration in the handler, seconds.
        full_batch, full_s: size of the full batches, and their duration in the handler.
        full_rps: throughput of one worker with full batches.
    """
    between_s = max(full_batch / full_rps - full_s, 0.0)
    return batch_size / (batch_s + between_s)
