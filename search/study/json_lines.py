"""Files of JSON lines: append durably, and read past what a full disk or a killed writer left."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from search.atomic_files import sync_folder

#: Every line starts with its version. Inside a string of JSON the quotes would be escaped.
_START = b'{"format_version"'
_BLOCK_BYTES = 1 << 12


def format_line(version: int, data: Mapping[str, Any]) -> str:
    """Return a line with this format version."""
    return json.dumps({"format_version": version, **data}) + "\n"


def append_line(path: Path, version: int, data: Mapping[str, Any]) -> None:
    """Append a line with this format version, and sync it to disk.

    Several processes may append. A partial last line is removed first. If the line cannot be
    written completely, nothing of it stays.

    Raises:
        OSError: the line cannot be written.
    """
    text = format_line(version, data).encode()
    with path.open("a+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        end = _end_of_lines(file)
        file.truncate(end)
        try:
            while text:
                text = text[file.write(text) or 0 :]
            os.fsync(file.fileno())
            if end == 0:  # The file may be new.
                sync_folder(path.parent)
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(end)
            raise


def complete_lines(text: bytes) -> Iterator[tuple[bytes, Any]]:
    """Yield each complete line and its data; None if it is damaged.

    A complete record that follows a partial one on the same line is recovered.
    """
    for line in text.split(b"\n")[:-1]:
        yield line + b"\n", _data_of(line)


def _data_of(line: bytes) -> Any:
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(line)
    if (start := line.rfind(_START)) > 0:
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(line[start:])
    return None


def _end_of_lines(file: io.FileIO) -> int:
    """Return the offset at which the last complete line ends."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(end - _BLOCK_BYTES, 0)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
