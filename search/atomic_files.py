"""Write files and folders completely or not at all, and onto the disk."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from pathlib import Path

#: See renameat2(2): paths are relative to the working folder; the two are exchanged.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
#: The errors of a kernel or a file system that cannot exchange paths.
_NOT_SUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)


def write_atomically(path: Path, content: str | bytes, mode: int = 0o666) -> None:
    """Write a file completely or not at all, and sync it to disk.

    Args:
        mode: the permissions, which the process's umask restricts.
    """
    new = path.with_name(f".{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def replace_folder(new: Path, folder: Path) -> None:
    """Put a folder, synced to disk, in the place of another, which is removed.

    At every moment, `folder` is the previous one or the new one; where the file system cannot
    exchange two paths, it is missing for an instant. If it cannot be done, the previous one stays.

    Raises:
        OSError: it cannot be done.
    """
    sync_tree(new)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if not folder.exists():
        new.rename(folder)
    elif _exchange(new, folder):
        old = new
    else:
        folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            old.rename(folder)
            raise
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two paths at once; return False where this is not supported."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    paths = (os.fsencode(first), os.fsencode(second))
    if renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
        return True
    error = ctypes.get_errno()
    if error in _NOT_SUPPORTED:
        return False
    raise OSError(error, os.strerror(error), str(second))


def sync_tree(folder: Path) -> None:
    """Sync the files in a folder, and their names, to disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with Path(parent, name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(parent))


def sync_folder(folder: Path) -> None:
    """Sync the names of the files in a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
