"""The small process that ends what a killed owner left, and removes its folder.

Run as a script with FOLDER, a SENTENCE to say of an end without a word, where there is one, and
the SECONDS that Ray's processes have to end by themselves. The owner holds its standard input
open, and writes `done` before it ends in order.
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

#: The file of a folder that names the process that it belongs to.
OWNER = "owner.pid"
_LOOK_S = 0.5
#: What only the command lines of Ray's own processes hold.
_RAYS = ("ray::", "/ray/core/", "/ray/_private/", "/ray/dashboard/")


def main(folder: Path, sentence: str = "", seconds: str = "20") -> None:
    # Leave the asker's children: Ray kills those of a worker that ends.
    if os.fork():
        os._exit(0)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.stdin.read() != "done" and sentence:
        print(sentence, file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):  # Who sweeps leaves it to this process from now on.
        started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
        (folder / OWNER).write_text(f"{os.getpid()} {started}")
    patience = time.monotonic() + float(seconds)
    while folder.exists():
        users = [process for process in psutil.process_iter() if _uses(process, folder)]
        if not users:
            shutil.rmtree(folder, ignore_errors=True)
            return
        if time.monotonic() > patience:
            for process in users:
                with contextlib.suppress(psutil.Error):
                    process.kill()
        time.sleep(_LOOK_S)


def _uses(process: psutil.Process, folder: Path) -> bool:
    """Whether this is one of Ray's processes with this folder in its command or open in it."""
    try:
        command = process.cmdline()
        if not any(mark in part for mark in _RAYS for part in command):
            return False
        paths = [*command, *(file.path for file in process.open_files())]
    except psutil.Error:
        return False
    return any(f"{folder}/" in path for path in paths)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
