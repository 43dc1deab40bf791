"""Whether a running server is still what was started."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class WorkerProcess:
    """A process under the JVM: how it was started, and the cores that it may use."""

    command: str
    cores: tuple[int, ...]


def _oom_kills() -> int:
    """Processes that the kernel has killed for memory since the host started."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
