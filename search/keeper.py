"""The small process that removes a folder once its owner is gone, however that ended.

Run as a script with FOLDER and, where there is something to say of an end without a word, that
SENTENCE. The owner holds its standard input open, and writes `done` before it ends in order.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import psutil

#: What used the folder ends by itself, Ray's processes within a minute.
_LIMIT_S = 120.0
_LOOK_S = 0.2


def main(folder: Path, sentence: str = "") -> None:
    # Leave the asker's children: Ray kills those of a worker that ends.
    if os.fork():
        os._exit(0)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.stdin.read() != "done" and sentence:
        print(sentence, file=sys.stderr, flush=True)
    give_up = time.monotonic() + _LIMIT_S
    while folder.exists():
        if not _is_used(folder) or time.monotonic() > give_up:
            shutil.rmtree(folder, ignore_errors=True)
            return
        time.sleep(_LOOK_S)


def _is_used(folder: Path) -> bool:
    lines = (process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"]))
    # This process itself has it as a whole argument.
    return any(str(folder) in part for line in lines for part in line if part != str(folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
