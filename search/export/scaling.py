"""What one replica can take and needs: the numbers that a platform scales by. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Share of the claimed rate that is kept free for peaks and for replicas that are down.
DEFAULT_HEADROOM = 0.3
#: Without a limit in the specification, a container gets this factor of the peak memory.
_MEMORY_FACTOR = 1.5
_MEMORY_STEP_MB = 64


@dataclass(frozen=True)
class Scaling:
    """The load that a replica is planned for.

    Attributes:
        rate_rps: the rate that a replica sustains.
        latency_s: median time that a request takes at this rate, seconds.
        capacity: requests that a replica holds before it refuses one: batches and queue.
        headroom: share of the rate that is kept free.
        replicas: number of replicas for the expected load; None if it is not known.
    """

    rate_rps: float
    latency_s: float
    capacity: int
    headroom: float = DEFAULT_HEADROOM
    replicas: int | None = None

    @property
    def target_rps(self) -> float:
        """Rate at which a replica is full and another one is started."""
        return self.rate_rps * (1 - self.headroom)

    @property
    def concurrency(self) -> int:
        """Requests in flight at the target rate, by Little's law."""
        return max(1, math.ceil(self.target_rps * self.latency_s))

    @property
    def invocations_per_minute(self) -> int:
        """The target rate as SageMaker counts it."""
        return max(1, math.floor(60 * self.target_rps))

    @property
    def least_replicas(self) -> int:
        """Replicas that always run: those for the expected load, else two."""
        return self.replicas or 2

    @property
    def most_replicas(self) -> int:
        """Replicas at most: twice those that always run."""
        return 2 * self.least_replicas


def replicas_for(load_rps: float, rate_rps: float, headroom: float) -> int:
    """Return the replicas that sustain a load with this share of their rate kept free."""
    return max(1, math.ceil(load_rps / (rate_rps * (1 - headroom))))


@dataclass(frozen=True)
class Resources:
    """What a replica needs.

    Attributes:
        cpus: cores; None if they are not known.
        memory_mb: memory of all processes, MiB; None if it is not known.
        are_limits: whether the trial ran under these limits; else they are estimates.
    """

    cpus: float | None
    memory_mb: int | None
    are_limits: bool

    @classmethod
    def of(
        cls,
        limit_cpus: float | None,
        limit_memory_mb: int | None,
        cores: int | None,
        peak_memory_mb: int | None,
    ) -> Resources:
        """Return the limits of the trial, or for each without a limit an estimate."""
        memory_mb = limit_memory_mb
        if memory_mb is None and peak_memory_mb is not None:
            steps = math.ceil(_MEMORY_FACTOR * peak_memory_mb / _MEMORY_STEP_MB)
            memory_mb = steps * _MEMORY_STEP_MB
        cpus = limit_cpus if limit_cpus is not None else cores
        return cls(cpus, memory_mb, limit_cpus is not None and limit_memory_mb is not None)

    def kubernetes(self) -> dict[str, dict[str, str]]:
        """Return the `resources` of a container: requests equal limits."""
        values = {}
        if self.cpus is not None:
            values["cpu"] = f"{self.cpus:g}" if self.cpus >= 1 else f"{1000 * self.cpus:.0f}m"
        if self.memory_mb is not None:
            values["memory"] = f"{self.memory_mb}Mi"
        return {"requests": values, "limits": dict(values)} if values else {}
