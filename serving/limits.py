"""The cores and the memory that this process may use: affinity, cgroups v1 and v2, /proc/meminfo.

A cgroup is limited by itself and by each cgroup above it, so the lowest limit counts. `root` is the
root of the file system, for tests.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path("/")
#: By version of cgroups: the files for limit and use, and the key of the page cache that the kernel
#: drops first, in memory.stat.
_MEMORY_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


@dataclass(frozen=True)
class Limits:
    """Limits of a deployment.

    Attributes:
        cpus: CPU time per second of wall time; None for all cores of the host.
        memory_bytes: memory of all processes; None for all memory of the host.
    """

    cpus: float | None = None
    memory_bytes: int | None = None

    def cores(self, available: int) -> int:
        """Return the number of cores that a JVM counts under these limits."""
        return available if self.cpus is None else min(available, max(1, math.ceil(self.cpus)))


@dataclass(frozen=True)
class Cgroup:
    """A cgroup of this process.

    Attributes:
        version: 1 or 2.
        folder: of the cgroup.
        mount: the folder of the highest cgroup that is visible here.
    """

    version: int
    folder: Path
    mount: Path

    def levels(self) -> tuple[Path, ...]:
        """Return the folders of the cgroup and of all visible cgroups above it."""
        above = [path for path in self.folder.parents if path.is_relative_to(self.mount)]
        return (self.folder, *above)


def affinity_cores() -> int:
    """Return the number of cores that this process may run on: torch's default thread count.

    OpenMP, and so torch, ignores the CPU quota of a cgroup.
    """
    return len(os.sched_getaffinity(0))


def available_cores(root: Path = ROOT, affinity: int | None = None) -> int:
    """Return the number of cores that a JVM counts: the CPU quota rounded up, at most the affinity.

    Java 11 and newer count in this way (`CgroupUtil::processor_count`).

    Args:
        affinity: number of cores that this process may run on; None to read it.
    """
    affinity = affinity or affinity_cores()
    return Limits(cpus=cpu_quota(root)).cores(affinity)


def cpu_quota(root: Path = ROOT) -> float | None:
    """Return the lowest CPU quota of this process's cgroups, in cores; None without a quota."""
    cgroup = find_cgroup("cpu", root)
    levels = cgroup.levels() if cgroup else ()
    quotas = [level_quota(level) for level in levels]
    return min((quota for quota in quotas if quota is not None), default=None)


def total_memory_bytes(root: Path = ROOT) -> int:
    """Return the memory of the host, or the lowest limit of this process's cgroups if less."""
    return min([_meminfo("MemTotal", root), *(limit for limit, _ in _memory_levels(root))])


def available_memory_bytes(root: Path = ROOT) -> int:
    """Return the memory that this process and its children can still allocate."""
    free = [max(0, limit - used) for limit, used in _memory_levels(root)]
    return min([_meminfo("MemAvailable", root), *free])


def find_cgroup(controller: str, root: Path = ROOT) -> Cgroup | None:
    """Return the cgroup in which a controller limits this process; None if there is none.

    Version 1 is preferred: if both are mounted, a controller of version 1 is not in version 2.
    """
    paths: dict[str, str] = {}
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        paths |= dict.fromkeys(names.split(","), path)
    found = {}
    for line in _read(root / "proc/self/mountinfo").splitlines():
        mount_fields, _, file_system = line.partition(" - ")
        kind, _, options = file_system.split(" ", 2)
        name = controller if kind == "cgroup" else ""
        is_right = kind == "cgroup2" or (kind == "cgroup" and controller in options.split(","))
        if is_right and name in paths:
            mount_root, mount = mount_fields.split()[3:5]
            version = 1 if name else 2
            folder = root / re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), mount).lstrip("/")
            found[version] = Cgroup(version, _inside(folder, mount_root, paths[name]), folder)
    return found.get(1) or found.get(2)


def level_quota(folder: Path) -> float | None:
    """Return the CPU quota that one cgroup sets, in cores; None without a quota."""
    fields = _read(folder / "cpu.max").split() or [
        _read(folder / "cpu.cfs_quota_us"),
        _read(folder / "cpu.cfs_period_us"),
    ]
    try:
        quota, period = map(int, fields)
    except ValueError:  # "max", or the files are missing.
        return None
    return quota / period if quota > 0 and period > 0 else None


def level_memory_limit(folder: Path, version: int) -> int | None:
    """Return the memory limit that one cgroup sets, in bytes; None without a limit."""
    text = _read(folder / _MEMORY_FILES[version][0])
    return int(text) if text.isdecimal() else None


def _memory_levels(root: Path) -> Iterator[tuple[int, int]]:
    """Yield the limit of each level and its use without droppable page cache, in bytes."""
    cgroup = find_cgroup("memory", root)
    for level in cgroup.levels() if cgroup else ():
        assert cgroup is not None
        _, use_file, cache_key = _MEMORY_FILES[cgroup.version]
        limit = level_memory_limit(level, cgroup.version)
        if limit is not None:
            used = int(_read(level / use_file) or 0)
            yield limit, used - keyed_number(level / "memory.stat", cache_key)


def keyed_number(path: Path, key: str) -> int:
    """Return the number after `key` in a file with lines of key and number; 0 without it."""
    for line in _read(path).splitlines():
        if line.startswith(f"{key} "):
            return int(line.split()[1])
    return 0


def _meminfo(key: str, root: Path) -> int:
    return keyed_number(root / "proc/meminfo", f"{key}:") << 10


def _inside(mount: Path, mount_root: str, path: str) -> Path:
    """Return the folder of a cgroup; that of the mount if a container does not see it."""
    cgroup = PurePosixPath(path)
    if ".." not in cgroup.parts and cgroup.is_relative_to(mount_root):
        folder = mount / cgroup.relative_to(mount_root)
        if folder.is_dir():
            return folder
    return mount


def _read(path: Path) -> str:
    """Return the text of a file; an empty text if it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
