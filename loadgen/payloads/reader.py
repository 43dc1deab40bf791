"""Read a requests file and the files that it names."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from loadgen.errors import PayloadError
from loadgen.payloads.line import build_payload, named_files
from loadgen.payloads.payload import Payload
from loadgen.payloads.text import Members, decode, shortened, split

#: Every load generator process keeps all requests in memory.
MAX_BYTES = 1 << 30
_MAX_PROBLEMS = 10
_MAX_LENGTH = 500


def read_payloads(path: Path) -> list[Payload]:
    """Read a requests file: JSON objects, one per line, or a JSON array of them.

    docs/requests.md describes the keys of an object.

    Raises:
        PayloadError: the file cannot be read, or has no requests, or a request is not valid. The
            message names each of the first mistakes with its line.
    """
    files = _Files(path.parent)
    payloads, problems = [], []
    for line, members in _read(path):
        try:
            if isinstance(members, str):
                raise ValueError(members)
            payloads.append(build_payload(members, files.read))
        except ValueError as error:
            problems.append(f"requests file {path}, line {line}: {_sentence(str(error))}")
    if problems:
        further = len(problems) - _MAX_PROBLEMS
        shown = problems[:_MAX_PROBLEMS]
        raise PayloadError(*shown, *[f"and {further} more mistakes in {path}"] * (further > 0))
    if not payloads:
        raise PayloadError(f"requests file {path} contains no requests")
    return payloads


def referenced_files(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each file that a requests file names; reads none of them.

    Raises:
        PayloadError: the requests file cannot be read.
    """
    for line, members in _read(path):
        if not isinstance(members, str):
            for name in named_files(members):
                yield line, name


def _read(path: Path) -> Iterator[tuple[int, Members | str]]:
    try:
        data = _read_bytes(path, 0, may_be_pipe=True)
    except ValueError as error:
        raise PayloadError(f"requests file {path} {error}") from None
    try:
        return split(decode(data))
    except ValueError as error:
        raise PayloadError(f"requests file {path}, {error}") from None


def _sentence(text: str) -> str:
    """Return a message that quotes the file, on one line and of limited length."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH - 1]}…"


class _Files:
    """The files that the requests name, each read once; their names start at a folder."""

    def __init__(self, folder: Path):
        self._folder, self._size = folder, 0
        self._contents: dict[str, bytes] = {}

    def read(self, name: str) -> bytes:
        """Return a file's bytes; raise ValueError with one sentence if that is not possible."""
        if name not in self._contents:
            try:
                data = _read_bytes(self._folder / name, self._size)
            except ValueError as error:
                raise ValueError(f"file {shortened(name)!r} {error}") from None
            self._contents[name] = data
            self._size += len(data)
        return self._contents[name]


def _read_bytes(path: Path, size: int, may_be_pipe: bool = False) -> bytes:
    """Return a file's bytes.

    Args:
        size: bytes of the other files, which count for the limit.
        may_be_pipe: whether the file may be a named pipe, such as `<(command)` in a shell.

    Raises:
        ValueError: it cannot be read, or is too large; the message continues a file's name.
    """
    try:
        try:
            found = path.stat()
        except ValueError as error:
            raise ValueError(f"cannot be read: {error}") from None
        if stat.S_ISDIR(found.st_mode):
            raise ValueError("is a folder, not a file")
        if not (stat.S_ISREG(found.st_mode) or (may_be_pipe and stat.S_ISFIFO(found.st_mode))):
            raise ValueError("is not a regular file")
        if size + found.st_size <= MAX_BYTES:
            with path.open("rb") as file:
                pieces = []
                while size <= MAX_BYTES and (piece := file.read(1 << 24)):
                    pieces.append(piece)
                    size += len(piece)
                if size <= MAX_BYTES:
                    return b"".join(pieces)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    raise ValueError(
        f"is too large: requests and their files may have {MAX_BYTES >> 20} MiB in all, because "
        "each load generator process keeps them in memory; use a sample"
    )
