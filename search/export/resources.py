"""What a replica needs: cores and memory. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Without a limit in the specification, a container gets this factor of the peak memory.
_MEMORY_FACTOR = 1.5
_MEMORY_STEP_MB = 64


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

    @property
    def text(self) -> str:
        """The cores and the memory, as a phrase; empty if neither is known."""
        parts = [f"{self.cpus:g} cores"] if self.cpus is not None else []
        parts += [f"{self.memory_mb} MiB of memory"] if self.memory_mb is not None else []
        return " and ".join(parts)

    @property
    def origin(self) -> str:
        """What the numbers are, as a phrase."""
        if self.are_limits:
            return "the limits of the trial"
        return "estimates: the trial's cores, and 1.5 times its peak memory"

    def kubernetes(self) -> dict[str, dict[str, str]]:
        """Return the `resources` of a container: requests equal limits."""
        values = {}
        if self.cpus is not None:
            values["cpu"] = f"{self.cpus:g}" if self.cpus >= 1 else f"{1000 * self.cpus:.0f}m"
        if self.memory_mb is not None:
            values["memory"] = f"{self.memory_mb}Mi"
        return {"requests": values, "limits": dict(values)} if values else {}
