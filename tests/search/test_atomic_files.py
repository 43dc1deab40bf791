"""Files and folders that are replaced at once, or not at all."""

from __future__ import annotations

import ctypes
import errno
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from search import atomic_files
from search.atomic_files import replace_folder, write_atomically


def make_folder(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "file").write_text(text)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_replace_folder_never_lacks_the_folder(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "best", "0")
    if not atomic_files._exchange(folder, make_folder(tmp_path / ".best.new", "0")):
        pytest.skip("the file system cannot exchange two folders")
    shutil.rmtree(tmp_path / ".best.new")
    seen: set[str] = set()
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            seen.add("folder" if folder.is_dir() else "nothing")

    reader = threading.Thread(target=look)
    reader.start()
    for n in range(1, 200):
        replace_folder(make_folder(tmp_path / ".best.new", str(n)), folder)
        assert (folder / "file").read_text() == str(n)
    while not seen:
        time.sleep(0.01)
    is_over.set()
    reader.join()
    assert seen == {"folder"} and names(tmp_path) == ["best"]


def test_replace_folder_creates_it(tmp_path: Path) -> None:
    replace_folder(make_folder(tmp_path / ".best.new", "a"), tmp_path / "best")
    assert (tmp_path / "best" / "file").read_text() == "a" and names(tmp_path) == ["best"]


class OtherLibrary:
    """A C library, or a file system, that cannot exchange two paths."""

    def __init__(self, error: int | None):
        if error is not None:
            self.renameat2 = lambda *_: ctypes.set_errno(error) or -1


@pytest.mark.parametrize("error", [None, errno.ENOSYS, errno.EINVAL])
def test_replace_folder_renames_twice_where_paths_cannot_be_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int | None
) -> None:
    monkeypatch.setattr(atomic_files.ctypes, "CDLL", lambda *_, **__: OtherLibrary(error))
    folder = make_folder(tmp_path / "best", "old")
    replace_folder(make_folder(tmp_path / ".best.new", "new"), folder)
    assert (folder / "file").read_text() == "new" and names(tmp_path) == ["best"]


def test_replace_folder_keeps_the_previous_one_if_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic_files.ctypes, "CDLL", lambda *_, **__: OtherLibrary(errno.EIO))
    folder, new = make_folder(tmp_path / "best", "old"), make_folder(tmp_path / "new", "new")
    with pytest.raises(OSError, match="Input/output"):
        replace_folder(new, folder)
    monkeypatch.setattr(atomic_files.ctypes, "CDLL", lambda *_, **__: OtherLibrary(None))
    rename = Path.rename

    def refuse(path: Path, target: Any) -> Path:
        if path == new:
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="Input/output"):
        replace_folder(new, folder)
    assert (folder / "file").read_text() == "old"


def test_write_atomically_leaves_the_file_if_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "old" and names(tmp_path) == ["a"]
