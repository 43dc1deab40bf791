"""Files of JSON lines on a disk that is full, and after it."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.study.json_lines import append_line, complete_lines

WHOLE = b'{"format_version": 2, "a": "\\u00e4 {\\"format_version\\": 1"}\n'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b""),
        (b"{}\n", b"{}\n"),
        (b'{"a": ', b""),
        (b'{}\n{"a": ', b"{}\n"),
        (b"{}\n" + b"x" * 9000, b"{}\n"),
        (b"x" * 9000, b""),
        (b"x\n" + b"y" * 4095, b"x\n"),
        (b"{}\n\0\0\0", b"{}\n"),
    ],
)
def test_append_line_removes_a_partial_last_line(
    tmp_path: Path, before: bytes, after: bytes
) -> None:
    path = tmp_path / "lines"
    path.write_bytes(before)
    append_line(path, 2, {"a": 'ä {"format_version": 1'})
    assert path.read_bytes() == after + WHOLE


def test_append_line_syncs_a_new_file_and_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda number: synced.append(Path(f"/proc/self/fd/{number}").resolve().name)
    )
    for number in range(2):
        append_line(tmp_path / "lines", 2, {"a": number})
    assert synced == ["lines", tmp_path.name, "lines"]


@pytest.mark.parametrize("written", [0, 1, 20])
def test_append_line_leaves_nothing_of_a_line_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    path = tmp_path / "lines"
    append_line(path, 2, {"a": 1})
    before = path.read_bytes()

    class FullDisk(io.FileIO):
        """Writes a few bytes, then has no space left."""

        left = written

        def write(self, data: Any) -> int:
            if not self.left:
                raise OSError(errno.ENOSPC, "No space left on device")
            count = super().write(bytes(data)[: self.left])
            self.left = 0
            return count

    opened: Callable[..., Any] = lambda self, mode, buffering: FullDisk(self, "a+")  # noqa: E731
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(Path, "open", opened)
        append_line(path, 2, {"a": 2})
    assert path.read_bytes() == before
    append_line(path, 2, {"a": 3})
    assert [data["a"] for _, data in complete_lines(path.read_bytes())] == [1, 3]


def test_complete_lines_recovers_every_complete_record_of_a_cut_file() -> None:
    """Whatever prefix of a record a full disk left before a complete one."""
    for length in range(len(WHOLE) - 1):
        found = [data for _, data in complete_lines(WHOLE[:length] + WHOLE)]
        assert found == [{"format_version": 2, "a": 'ä {"format_version": 1'}], length


@pytest.mark.parametrize(
    "damaged", [b"\0\0\n", b'{"a": \n', b"[" * 100_000 + b"\n", b"\xff\r\x1c\n"]
)
def test_complete_lines_reports_a_damaged_line(damaged: bytes) -> None:
    found = list(complete_lines(damaged + WHOLE + b"{"))
    assert [(line, data is None) for line, data in found] == [(damaged, True), (WHOLE, False)]
