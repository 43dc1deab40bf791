"""Removal of the processes, cgroups and folders that remain after a supervisor was killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

from serving.cgroup import noted_cgroups, remove_cgroups
from serving.identity import is_alive

HOME_PREFIX = "servetune.serve-"
#: A folder without a supervisor's note may belong to a server that is just starting.
_MIN_AGE_S = 60


def remove_leftovers() -> None:
    """Kill the servers and remove the folders and cgroups of all supervisors that were killed."""
    roots = {Path(tempfile.gettempdir()), Path("/tmp")}
    for home in {home for root in roots for home in root.glob(f"{HOME_PREFIX}*")}:
        with contextlib.suppress(OSError, ValueError):
            status = home.stat()
            if status.st_uid != os.getuid():
                continue
            supervisor, server = home / "supervisor.pid", home / "server.pid"
            if supervisor.exists():
                is_stale = not is_alive(supervisor.read_text())
            else:
                is_stale = time.time() - status.st_mtime > _MIN_AGE_S
            if is_stale:
                if server.exists() and is_alive(server.read_text()):
                    kill_group(int(server.read_text().split()[0]))
                remove_cgroups(noted_cgroups(home))
                shutil.rmtree(home, ignore_errors=True)


def kill_group(pid: int) -> None:
    """Send SIGKILL to the process group of `pid`; do nothing if it does not exist."""
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
