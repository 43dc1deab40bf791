"""Temporary folders that are removed even if their process is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from search.cluster import janitor
from serving.archive import Archive
from serving.archive_files import unpack
from serving.identity import is_alive, process_identity

RAY_PREFIX, HOST_PREFIX, ARCHIVE_PREFIX = "servetune.ray-", "servetune.host-", "servetune.archive-"


@contextlib.contextmanager
def temporary_folder(prefix: str, message_if_killed: str = "") -> Iterator[Path]:
    """Yield a new folder; it is removed afterwards, also if this process is killed.

    Args:
        message_if_killed: printed on standard error if this process is killed.
    """
    folder = create_owned_folder(prefix)
    command = [sys.executable, "-P", janitor.__file__, str(folder), message_if_killed]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, text=True)
    assert process.stdin is not None
    try:
        process.wait()  # Until the janitor has forked.
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError), process.stdin as stdin:
            stdin.write("done")


@contextlib.contextmanager
def unpacked_archive(archive: Archive) -> Iterator[Archive]:
    """Yield the archive unpacked if trials change its model-config.yaml, else as it is.

    Each trial then links the unpacked files instead of copying them.
    """
    if archive.path.is_dir() or not archive.overridden_keys:
        yield archive
        return
    with temporary_folder(ARCHIVE_PREFIX) as folder:
        path = folder / archive.path.name
        unpack(archive.path, path)
        yield replace(archive, path=path)


@contextlib.contextmanager
def packed_archive(archive: Archive) -> Iterator[Path]:
    """Yield the archive as one file, which can be sent: a folder is packed."""
    if not archive.path.is_dir():
        yield archive.path
        return
    with temporary_folder(ARCHIVE_PREFIX) as folder:
        path = folder / f"{archive.path.name}.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            tar.add(archive.path, archive.path.name)
        yield path


def create_owned_folder(prefix: str) -> Path:
    """Return a new folder owned by this process; see `remove_stale_folders`."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    (folder / janitor.OWNER).write_text(process_identity(os.getpid()))
    return folder


def remove_stale_folders() -> None:
    """Remove the folders whose owner no longer runs."""
    prefixes = (RAY_PREFIX, HOST_PREFIX, ARCHIVE_PREFIX)
    for folder in [path for prefix in prefixes for path in Path("/tmp").glob(f"{prefix}*")]:
        with contextlib.suppress(OSError, ValueError):
            if not is_alive((folder / janitor.OWNER).read_text()):
                shutil.rmtree(folder, ignore_errors=True)
