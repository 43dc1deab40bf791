"""Detect whether the kernel killed a process of the server for lack of memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from serving.limits import keyed_number

#: Time from a kill until the process is seen to be missing, at most, seconds.
_DELAY_S = 5.0


class OomWatch:
    """Attributes kills by the kernel to the server.

    The kernel counts the kills in each cgroup, and those on the host. Without a cgroup for the
    server, a kill is attributed to it if one of its processes was killed up to 5 s after the
    host's counter increased.

    Attributes:
        has_killed: whether a process of the server was killed for lack of memory.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.has_killed = False
        self._clock = clock
        self._cgroup: Path | None = None
        self._host_kills = 0
        self._host_kill_s = float("-inf")

    def start(self, cgroup: Path | None) -> None:
        """Begin before the server starts.

        Args:
            cgroup: the new cgroup of the server; None without one.
        """
        self._cgroup = cgroup
        self._host_kills = host_oom_kills()

    def observe(self, killed: bool) -> bool:
        """Update and return `has_killed`.

        Args:
            killed: whether a process of the server was killed since the last call.
        """
        if self._cgroup is not None:
            kills = cgroup_oom_kills(self._cgroup)
            self.has_killed = self.has_killed or kills > 0
            return self.has_killed
        if (kills := host_oom_kills()) > self._host_kills:
            self._host_kills, self._host_kill_s = kills, self._clock()
        if killed and self._clock() - self._host_kill_s <= _DELAY_S:
            self.has_killed = True
        return self.has_killed


def host_oom_kills() -> int:
    """Return the number of processes on the host killed for lack of memory since the boot."""
    return keyed_number(Path("/proc/vmstat"), "oom_kill")


def cgroup_oom_kills(folder: Path) -> int:
    """Return the number of processes in a cgroup killed for lack of memory (v2 or v1)."""
    return sum(
        keyed_number(folder / name, "oom_kill") for name in ("memory.events", "memory.oom_control")
    )
