"""What a killed server leaves behind, and how it is removed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

from serving.identity import is_alive

HOME_PREFIX = "servetune.serve-"


def sweep() -> None:
    """Remove what instances whose supervisor was killed have left: processes and folders."""
    roots = {Path(tempfile.gettempdir()), Path("/tmp")}
    for home in {home for root in roots for home in root.glob(f"{HOME_PREFIX}*")}:
        with contextlib.suppress(OSError, ValueError):
            found = home.stat()
            if found.st_uid != os.getuid():
                continue
            note, server = home / "supervisor.pid", home / "server.pid"
            if note.exists():
                stale = not is_alive(note.read_text())
            else:
                stale = time.time() - found.st_mtime > 60
            if stale:
                if server.exists() and is_alive(server.read_text()):
                    _kill_group(int(server.read_text().split()[0]))
                shutil.rmtree(home, ignore_errors=True)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(pid, 9)
