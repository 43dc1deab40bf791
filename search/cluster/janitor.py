"""End the Ray processes of a killed owner, and remove its folder.

Run as a script with the arguments FOLDER, MESSAGE (printed on standard error if the owner is
killed; may be empty) and GRACE_S (seconds that Ray's processes have to end by themselves). The
owner keeps this process's standard input open, and writes `done` before it ends gracefully.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import psutil

#: The file in a folder that identifies its owner.
OWNER = "owner.pid"
_POLL_S = 0.5
#: Parts of command lines that only Ray's processes contain.
_RAY_MARKS = ("ray::", "/ray/core/", "/ray/_private/", "/ray/dashboard/")


def main(folder: Path, message: str = "", grace_s: str = "20") -> None:
    # Ray kills the children of a worker that ends; the forked process is none of them.
    if os.fork():
        os._exit(0)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.stdin.read() != "done" and message:
        print(message, file=sys.stderr, flush=True)
    # The new owner keeps `remove_stale_folders` from removing the folder.
    with contextlib.suppress(OSError):
        started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
        (folder / OWNER).write_text(f"{os.getpid()} {started}")
    deadline_s = time.monotonic() + float(grace_s)
    while folder.exists():
        users = [process for process in psutil.process_iter() if _is_ray_process(process, folder)]
        if not users:
            shutil.rmtree(folder, ignore_errors=True)
            return
        if time.monotonic() > deadline_s:
            for process in users:
                with contextlib.suppress(psutil.Error):
                    process.kill()
        time.sleep(_POLL_S)


def _is_ray_process(process: psutil.Process, folder: Path) -> bool:
    """Return whether a process is Ray's and has this folder in its command or open files."""
    try:
        command = process.cmdline()
        if not any(mark in part for mark in _RAY_MARKS for part in command):
            return False
        paths = [*command, *(file.path for file in process.open_files())]
    except psutil.Error:
        return False
    return any(f"{folder}/" in path for path in paths)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
