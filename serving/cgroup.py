"""Limits of a server: cgroups that are created for it or, if not permitted, CPU affinity."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from serving.limits import (
    ROOT,
    Cgroup,
    Limits,
    available_cores,
    find_cgroup,
    level_memory_limit,
    level_quota,
    total_memory_bytes,
)

#: In the folder of a server: the folders of its cgroups, one per line.
CGROUPS_FILE = "cgroups"
_PERIOD_US = 100_000
_REMOVE_LIMIT_S = 2.0
#: By cgroup, the text of each of its files.
Plan = Mapping[Path, Mapping[str, str]]


@dataclass(frozen=True)
class Enforcement:
    """How limits are applied to a server.

    Attributes:
        cgroups: the folders of the cgroups that its processes run in.
        cores: the cores that its processes may run on; all if empty.
        method: for the facts of a trial; empty without limits.
        warnings: reasons why the server does not run exactly under the limits.
    """

    cgroups: tuple[Path, ...] = ()
    cores: tuple[int, ...] = ()
    method: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def memory_cgroup(self) -> Path | None:
        """The cgroup that counts kills for lack of memory."""
        # The last one: see `plan_cgroups`.
        return self.cgroups[-1] if self.cgroups else None


def enforce(limits: Limits, home: Path, root: Path = ROOT) -> Enforcement:
    """Create cgroups with these limits; if that is not permitted, choose cores.

    Args:
        home: the server's folder; the cgroups have its name, and their folders are noted in it.
    """
    if limits == Limits():
        return Enforcement()
    warnings = _excess_warnings(limits, root)
    try:
        plan = plan_cgroups(limits, home.name, root)
        (home / CGROUPS_FILE).write_text("\n".join(map(str, plan)))
        _create(plan)
    except OSError as error:
        cores = sorted(os.sched_getaffinity(0))
        number = limits.cores(len(cores))
        warnings.append(
            f"serving.limits are applied without a cgroup ({error.strerror or error}): the server "
            f"runs on {number} of {len(cores)} cores, and its memory is checked at intervals"
        )
        method = "CPU affinity and memory budget"
        # The first core often serves more interrupts.
        return Enforcement((), tuple(cores[-number:]), method, tuple(warnings))
    return Enforcement(tuple(plan), (), "cgroup", tuple(warnings))


def plan_cgroups(limits: Limits, name: str, root: Path = ROOT) -> Plan:
    """Return the cgroups to create, the one for memory last.

    Raises:
        OSError: cgroups with these controllers cannot be created.
    """
    controllers: dict[Cgroup, list[str]] = {}
    for controller in ("cpu", "memory"):
        if (cgroup := find_cgroup(controller, root)) is None:
            raise FileNotFoundError(f"there is no cgroup controller {controller}")
        controllers.setdefault(cgroup, []).append(controller)
    return {
        _parent(cgroup, names) / name: {
            file: text for c in names for file, text in _files(limits, c, cgroup.version).items()
        }
        for cgroup, names in controllers.items()
    }


def _parent(cgroup: Cgroup, controllers: list[str]) -> Path:
    """Return the folder in which a cgroup with these controllers can be created."""
    if cgroup.version == 1:
        return cgroup.folder
    # A cgroup with processes passes no controllers on, but the one above it may. This process's
    # limits would not apply there, so it must have none.
    parents = [cgroup.folder]
    has_limit = level_quota(cgroup.folder) or level_memory_limit(cgroup.folder, 2)
    if cgroup.folder != cgroup.mount and has_limit is None:
        parents.append(cgroup.folder.parent)
    for parent in parents:
        with contextlib.suppress(OSError):
            if {*controllers} <= {*(parent / "cgroup.subtree_control").read_text().split()}:
                return parent
    raise PermissionError(f"the cgroup {cgroup.folder} does not delegate {', '.join(controllers)}")


def _files(limits: Limits, controller: str, version: int) -> dict[str, str]:
    if controller == "cpu" and limits.cpus is not None:
        quota = max(1000, round(limits.cpus * _PERIOD_US))  # The kernel accepts 1 ms or more.
        if version == 2:
            return {"cpu.max": f"{quota} {_PERIOD_US}"}
        return {"cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": str(quota)}
    if controller == "memory" and limits.memory_bytes is not None:
        name = "memory.max" if version == 2 else "memory.limit_in_bytes"
        return {name: str(limits.memory_bytes)}
    return {}


def _create(plan: Plan) -> None:
    created = []
    try:
        for folder, files in plan.items():
            folder.mkdir()
            created.append(folder)
            for name, text in files.items():
                (folder / name).write_text(text)
    except OSError:
        remove_cgroups(created)
        raise


def remove_cgroups(folders: Iterable[Path]) -> None:
    """Remove cgroups, and kill the processes in them; do nothing if they do not exist."""
    for folder in folders:
        deadline = time.monotonic() + _REMOVE_LIMIT_S
        while folder.is_dir() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                for pid in (folder / "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
            try:
                folder.rmdir()
            except OSError:  # A process has not ended yet.
                time.sleep(0.02)


def noted_cgroups(home: Path) -> list[Path]:
    """Return the cgroups of the server with this folder."""
    try:
        paths = map(Path, (home / CGROUPS_FILE).read_text().splitlines())
    except OSError:
        return []
    return [path for path in paths if path.name == home.name]


def _excess_warnings(limits: Limits, root: Path) -> list[str]:
    """Return a warning for each limit that is higher than the host's."""
    warnings = []
    cores, memory = available_cores(root), total_memory_bytes(root)
    if limits.cpus is not None and limits.cpus > cores:
        warnings.append(
            f"serving.limits.cpus is {limits.cpus:g}, but the host has only {cores} cores"
        )
    if limits.memory_bytes is not None and limits.memory_bytes > memory:
        warnings.append(
            f"serving.limits.memory_mb is {limits.memory_bytes >> 20}, but the host has only "
            f"{memory >> 20} MiB"
        )
    return warnings
