"""The CPU time of this host, by user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import psutil


@dataclass(frozen=True)
class CpuShares:
    """Shares of the CPU time of all cores, 0 to 1.

    Attributes:
        steal: taken by the hypervisor.
        other_cpu: used by processes other than the server and the load generator.
    """

    steal: float
    other_cpu: float


@dataclass(frozen=True)
class CpuTimes:
    """CPU time of all cores since the host started, in seconds."""

    busy_s: float
    steal_s: float
    total_s: float

    @classmethod
    def now(cls) -> Self:
        """Return the current times."""
        times = psutil.cpu_times()
        # On Linux, user and nice include the time of guests.
        total_s = sum(times) - times.guest - times.guest_nice
        return cls(total_s - times.idle - times.iowait - times.steal, times.steal, total_s)

    def shares_since(self, before: CpuTimes, own_s: float) -> CpuShares:
        """Return the shares since an earlier reading.

        Args:
            own_s: CPU seconds of the server and the load generator.
        """
        total_s = max(self.total_s - before.total_s, 1e-9)
        other_s = self.busy_s - before.busy_s - own_s
        return CpuShares(
            steal=round((self.steal_s - before.steal_s) / total_s, 4),
            other_cpu=round(max(other_s, 0.0) / total_s, 4),
        )
