"""Folders that belong to a process and disappear with it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from search.cluster import janitor as keeper
from serving.identity import identity, is_alive

#: Folders that belong to a process, which is named in them.
RAY_PREFIX, HOST_PREFIX = "servetune.ray-", "servetune.host-"


@contextlib.contextmanager
def temporary_folder(prefix: str, ended: str = "") -> Iterator[Path]:
    """A folder that is gone after this, and also where this process is killed.

    Args:
        ended: what is then said on standard error.
    """
    folder = create_owned_folder(prefix)
    command = [sys.executable, "-P", keeper.__file__, str(folder), ended]
    starter = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, text=True)
    assert starter.stdin is not None
    try:
        starter.wait()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError), starter.stdin as stdin:
            stdin.write("done")


def create_owned_folder(prefix: str) -> Path:
    """A folder that belongs to this process: whoever sweeps removes it once that is gone."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    (folder / keeper.OWNER).write_text(identity(os.getpid()))
    return folder


def remove_stale_folders() -> None:
    """Remove the folders whose process was killed."""
    prefixes = (RAY_PREFIX, HOST_PREFIX)
    for folder in [path for prefix in prefixes for path in Path("/tmp").glob(f"{prefix}*")]:
        with contextlib.suppress(OSError, ValueError):
            if not is_alive((folder / keeper.OWNER).read_text()):
                shutil.rmtree(folder, ignore_errors=True)
