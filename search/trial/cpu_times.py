"""CPU time of this host, by who used it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import psutil


@dataclass(frozen=True)
class CpuShares:
    """Shares of all cores' time: taken by the hypervisor, and used by other processes."""

    steal: float
    other_cpu: float


@dataclass(frozen=True)
class CpuTimes:
    """CPU seconds of all cores since the host started."""

    busy_s: float
    steal_s: float
    total_s: float

    @classmethod
    def now(cls) -> Self:
        """Return the present counts."""
        times = psutil.cpu_times()
        # Linux counts a guest's time within user and nice as well.
        total_s = sum(times) - times.guest - times.guest_nice
        return cls(total_s - times.idle - times.iowait - times.steal, times.steal, total_s)

    def shares_since(self, before: CpuTimes, own_s: float) -> CpuShares:
        """Return who else used the CPU since an earlier reading.

        Args:
            own_s: CPU seconds of the server and the load generators, which are not others'.
        """
        total_s = max(self.total_s - before.total_s, 1e-9)
        other_s = self.busy_s - before.busy_s - own_s
        return CpuShares(
            steal=round((self.steal_s - before.steal_s) / total_s, 4),
            other_cpu=round(max(other_s, 0.0) / total_s, 4),
        )
