"""The identity of the host whose CPU time a process uses."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@cache
def host_id() -> str:
    """Return an id of the running kernel, which all containers and namespaces on it share.

    A kernel counts the CPU time of all of them together, whatever their host names are.
    """
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return platform.node()
