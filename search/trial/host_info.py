"""Facts of the host and the software versions that a result was measured with."""

from __future__ import annotations

import importlib.metadata
import platform
import socket
from pathlib import Path
from typing import Any

from serving.gpu import find_gpus
from serving.installation import Installation
from serving.limits import affinity_cores, available_cores, total_memory_bytes

#: Where the load comes from, as runs record it, if no other host sends any.
BESIDE_SERVER = "on the server's host"
_PACKAGES = ("servetune", "torchserve", "ray", "optuna", "aiohttp")


def describe_host() -> dict[str, Any]:
    """Return name, CPU, cores, memory in MiB, kernel and, if any, GPUs of this host.

    Cores and memory are those that this process may use; `affinity_cores` ignores CPU quotas.
    """
    gpus = [gpu.name for gpu in find_gpus()]
    return {
        **({"gpus": ", ".join(gpus)} if gpus else {}),
        "host": socket.gethostname(),
        "cpu": _cpu_model(),
        "cores": available_cores(),
        "affinity_cores": affinity_cores(),
        "memory_mb": total_memory_bytes() >> 20,
        "kernel": platform.release(),
    }


def describe_versions(installation: Installation) -> dict[str, Any]:
    """Return the versions of packages, of the workers' Python and torch, and of Java."""
    java = installation.java
    return {
        **{name: _version(name) for name in _PACKAGES},
        "torchserve": installation.torchserve_version,
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
