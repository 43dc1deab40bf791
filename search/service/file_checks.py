"""Check the files that a submitted specification names, before any of them is read.

Only regular files inside the allowed folders are opened, and only up to a size. Answers about a
path outside the folders do not depend on what is there.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from loadgen.errors import PayloadError
from loadgen.payloads import referenced_files
from search.service.zip_checks import zip_problem
from serving.archive import MANIFEST
from serving.archive_files import folder_root, is_inner
from serving.errors import PathRefused
from serving.safe_yaml import LimitError, check_yaml

MAX_TEXT_BYTES = 1 << 20
MAX_REQUESTS_BYTES = 64 << 20
MAX_RESULTS_BYTES = 256 << 20
#: The unpacked size of an archive: this, or a multiple of the archive's size.
_UNPACKED_BYTES, _UNPACKED_RATIO = 256 << 20, 20
_MAX_ENTRIES = 100_000
#: What an answer states about a path outside the folders.
OUTSIDE = "is outside the folders that the service may read"


class FileProblem(PathRefused):
    """A file that must not be used, with the reason as one sentence."""


@dataclass(frozen=True)
class FileChecks:
    """Checks of files inside folders.

    Attributes:
        roots: absolute paths of the folders, without symbolic links.
    """

    roots: tuple[Path, ...]

    def is_inside(self, path: Path) -> bool:
        """Return whether a path is inside the folders, with every symbolic link followed."""
        try:
            absolute = path.expanduser().resolve()
        except (OSError, RuntimeError, ValueError):
            return False
        return any(absolute.is_relative_to(root) for root in self.roots)

    def check_file(self, path: Path, max_bytes: int) -> None:
        """Check a file that is to be read; a missing one is left to its reader.

        Raises:
            FileProblem: it is outside the folders, no regular file, or too large.
        """
        if not self.is_inside(path):
            raise FileProblem(f"{str(path)!r} {OUTSIDE}")
        try:
            status = path.stat()
        except OSError:
            return
        if not stat.S_ISREG(status.st_mode):
            raise FileProblem(f"{path} is not a regular file")
        if status.st_size > max_bytes:
            raise FileProblem(f"{path} has {status.st_size} bytes; the maximum is {max_bytes}")

    def check_tree(self, path: Path, max_bytes: int) -> None:
        """Check a file, or a folder whose files are to be read; each is checked again by its size.

        Raises:
            FileProblem: see `check_file`.
        """
        if self.is_inside(path) and path.is_dir():
            self._check_entries_of(path)
        else:
            self.check_file(path, max_bytes)

    def check_archive(self, path: Path, max_bytes: int) -> None:
        """Check a model archive: a folder, a .mar file or a .tar.gz file.

        Raises:
            FileProblem: a part of it is outside the folders or outside the archive, or it is too
                large when it is unpacked.
        """
        if not self.is_inside(path):
            raise FileProblem(f"{str(path)!r} {OUTSIDE}")
        try:
            if path.is_dir():
                texts = self._check_folder(path)
            else:
                self.check_file(path, max_bytes)
                if not path.is_file():
                    return
                texts = _check_zip(path) if path.name.endswith(".mar") else _check_tar(path)
        except (gzip.BadGzipFile, tarfile.ReadError, zipfile.BadZipFile) as error:
            # Its reader may find a valid manifest before the damaged part.
            raise FileProblem(f"{path} is not a model archive: {error}") from None
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            raise FileProblem(f"{path} cannot be read: {type(error).__name__}") from None
        except (RuntimeError, NotImplementedError, ValueError) as error:
            raise FileProblem(f"{path} cannot be read: {error}") from None
        _check_manifest(path, texts)

    def _check_entries_of(self, folder: Path) -> None:
        for number, entry in enumerate(_walk(folder)):
            if number > _MAX_ENTRIES:
                raise FileProblem(f"{folder} has more than {_MAX_ENTRIES} files")
            inner = str(entry.relative_to(folder))
            if not self.is_inside(entry):
                raise FileProblem(f"the file {inner!r} of {folder} {OUTSIDE}")
            if entry.exists() and not (entry.is_file() or entry.is_dir()):
                raise FileProblem(f"the file {inner!r} of {folder} is not a regular file")

    def _check_folder(self, folder: Path) -> Mapping[str, bytes]:
        self._check_entries_of(folder)
        root = folder_root(folder)
        texts = {}
        for name in (MANIFEST, _config_name(_read_small(root / MANIFEST))):
            if name and is_inner(name) and (root / name).is_file():
                texts[name] = _read_small(root / name)
        return texts

    def check_requests(self, path: Path, allowed: FileChecks) -> None:
        """Check a requests file and the files that it names.

        Args:
            allowed: the checks of the files that it names.

        Raises:
            FileProblem: see `check_file`.
        """
        self.check_file(path, MAX_REQUESTS_BYTES)
        if not path.is_file():
            return
        total = 0
        with contextlib.suppress(PayloadError):  # Its reader reports it.
            for number, name in referenced_files(path):
                file = path.parent / name
                if not allowed.is_inside(file):
                    raise FileProblem(f"line {number}: {name!r} {OUTSIDE}")
                try:
                    allowed.check_file(file, MAX_REQUESTS_BYTES)
                except FileProblem as problem:
                    raise FileProblem(f"line {number}: {problem}") from None
                total += file.stat().st_size if file.is_file() else 0
                if total > MAX_REQUESTS_BYTES:
                    raise FileProblem(
                        f"the files that it names have more than {MAX_REQUESTS_BYTES} bytes"
                    )


def _walk(folder: Path) -> Iterator[Path]:
    """Yield every entry below a folder, each before it is listed; a linked folder once."""
    seen, waiting = set[Path](), [folder]
    while waiting:
        start = waiting.pop()
        if (real := start.resolve()) in seen:
            continue
        seen.add(real)
        for parent, folders, files in os.walk(start):
            for name in (*folders, *files):
                yield (entry := Path(parent, name))
                if entry.is_symlink() and entry.is_dir():
                    waiting.append(entry)


def _read_small(path: Path) -> bytes:
    if not path.is_file():
        return b""
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise FileProblem(f"{path} is larger than {MAX_TEXT_BYTES} bytes")
    return path.read_bytes()


def _config_name(manifest: bytes) -> str | None:
    """Return the name of the archive's model-config.yaml in its manifest."""
    try:
        name = json.loads(manifest)["model"]["configFile"]
        # As `Archive.read` takes it.
        return str(name) if name else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _check_manifest(path: Path, texts: Mapping[str, bytes]) -> None:
    name = _config_name(texts.get(MANIFEST, b""))
    if name is not None and not is_inner(name):
        raise FileProblem(f"{path}: the configFile {name!r} of its manifest is outside of it")
    for text_name, text in texts.items():
        try:
            if text_name == name:
                check_yaml(text, allow_aliases=False)
            if text_name == MANIFEST:
                json.loads(text)
        except LimitError as error:
            raise FileProblem(f"{path}: {text_name}: {error.problem}") from None
        except RecursionError:
            raise FileProblem(f"{path}: {text_name} is nested too deeply") from None
        except (yaml.YAMLError, ValueError):
            continue  # Its reader reports it.


def _check_entries(path: Path, entries: Sequence[tuple[str, int]]) -> None:
    """Check the names and the unpacked sizes of an archive's files."""
    if len(entries) > _MAX_ENTRIES:
        raise FileProblem(f"{path} has more than {_MAX_ENTRIES} files")
    for name, _ in entries:
        if not is_inner(name):
            raise FileProblem(f"the file {name[:100]!r} of {path} would be outside of the archive")
    if sum(size for _, size in entries) > (limit := _max_unpacked(path)):
        raise FileProblem(f"{path} has more than {limit} bytes when it is unpacked")


def _max_unpacked(path: Path) -> int:
    return max(_UNPACKED_BYTES, _UNPACKED_RATIO * path.stat().st_size)


def _check_zip(path: Path) -> dict[str, bytes]:
    texts: dict[str, bytes] = {}
    with zipfile.ZipFile(path) as mar:
        infos = mar.infolist()
        _check_entries(path, [(info.filename, info.file_size) for info in infos])
        sizes = {info.filename: info.file_size for info in infos}
        for info in infos:
            if stat.S_ISLNK(info.external_attr >> 16):
                raise FileProblem(f"the file {info.filename!r} of {path} is a symbolic link")
        # Before an entry is read, which may unpack to more than its stated size.
        if (problem := zip_problem(mar)) is not None:
            raise FileProblem(f"{path}: {problem}; pack it again")
        for text_name in (MANIFEST, None):
            name = text_name or _config_name(texts.get(MANIFEST, b""))
            if name is not None and name in sizes:
                if sizes[name] > MAX_TEXT_BYTES:
                    raise FileProblem(f"{name} of {path} is larger than {MAX_TEXT_BYTES} bytes")
                with mar.open(name) as file:
                    texts[name] = file.read(MAX_TEXT_BYTES + 1)
    return texts


class _Limited(io.RawIOBase):
    """A reader that fails after a number of bytes, however small its source is."""

    def __init__(self, source: gzip.GzipFile, path: Path, max_bytes: int):
        self._source, self._path, self._left = source, path, max_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with memoryview(buffer) as view:
            data = self._source.read(len(view))
            self._left -= len(data)
            if self._left < 0:
                limit = _max_unpacked(self._path)
                raise FileProblem(f"{self._path} has more than {limit} bytes when it is unpacked")
            view[: len(data)] = data
        return len(data)


def _check_tar(path: Path) -> dict[str, bytes]:
    texts: dict[str, bytes] = {}
    entries = []
    with (
        gzip.open(path, "rb") as unzipped,
        io.BufferedReader(_Limited(unzipped, path, _max_unpacked(path))) as limited,
        tarfile.open(fileobj=limited, mode="r|") as tar,
    ):
        for member in tar:
            entries.append((member.name, member.size))
            if len(entries) > _MAX_ENTRIES:
                break
            if member.issparse() or not (member.isreg() or member.isdir()):
                raise FileProblem(
                    f"the file {member.name[:100]!r} of {path} is a link, a device or sparse"
                )
            # TorchServe leaves out the first folder.
            name = member.name.partition("/")[2]
            if member.isreg() and member.size <= MAX_TEXT_BYTES and name.endswith(_TEXT_SUFFIXES):
                file = tar.extractfile(member)
                texts[name] = file.read() if file else b""
    _check_entries(path, entries)
    config = _config_name(texts.get(MANIFEST, b""))
    for member_name, size in entries:
        name = member_name.partition("/")[2]
        if name in (MANIFEST, config) and size > MAX_TEXT_BYTES:
            raise FileProblem(f"{name} of {path} is larger than {MAX_TEXT_BYTES} bytes")
    return {name: text for name, text in texts.items() if name in (MANIFEST, config)}


_TEXT_SUFFIXES = (".json", ".yaml", ".yml")
