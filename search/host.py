"""What a result was measured on: said beside every number."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from search.errors import RunError
from serving.gpu import find_gpus
from serving.installation import Installation

PACKAGES = ("servetune", "torchserve", "ray", "optuna", "aiohttp", "MLRsearch")


def describe_host() -> dict[str, Any]:
    """Name, processor, cores, memory in MiB, kernel and GPUs, where it has any, of this host."""
    gpus = [gpu.name for gpu in find_gpus()]
    return {
        **({"gpus": ", ".join(gpus)} if gpus else {}),
        "host": socket.gethostname(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mb": psutil.virtual_memory().total >> 20,
        "kernel": platform.release(),
    }


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Keep this host to one measurement: two at once would measure each other.

    Raises:
        RunError: there is another.
    """
    # A name that the kernel takes back from a process that ends, however it ends.
    with socket.socket(socket.AF_UNIX) as name:
        try:
            name.bind("\0servetune")
        except OSError:
            raise RunError(
                "another servetune measures on this host, and two would disturb each other; "
                "wait until it has ended"
            ) from None
        yield


@dataclass(frozen=True)
class CpuTimes:
    """CPU seconds of all cores since the host started: worked, and taken by the hypervisor."""

    busy_s: float
    steal_s: float
    total_s: float

    @classmethod
    def now(cls) -> Self:
        """The present counts."""
        times = psutil.cpu_times()
        # Linux counts a guest's time within user and nice as well.
        total_s = sum(times) - times.guest - times.guest_nice
        return cls(total_s - times.idle - times.iowait - times.steal, times.steal, total_s)

    def shares_since(self, before: CpuTimes, ours_s: float) -> dict[str, float]:
        """What of all cores' time others had: `steal` by the hypervisor, `foreign_cpu` here.

        Args:
            ours_s: CPU seconds of the server and of the load processes, which are not foreign.
        """
        total_s = max(self.total_s - before.total_s, 1e-9)
        foreign_s = self.busy_s - before.busy_s - ours_s
        return {
            "steal": round((self.steal_s - before.steal_s) / total_s, 4),
            "foreign_cpu": round(max(foreign_s, 0.0) / total_s, 4),
        }


def describe_versions(installation: Installation) -> dict[str, Any]:
    """The versions that matter to a result, the workers' interpreter and Java among them."""
    java = installation.java
    return {
        **{name: _version(name) for name in PACKAGES},
        "python": installation.python_version,
        "torch": installation.torch_version,
        "java": f"{java.version} ({java.source})",
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
