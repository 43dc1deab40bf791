"""The files in a model archive: a zip file (.mar), a gzipped tar file (.tar.gz) or a folder.

TorchServe 0.12.0 unpacks a file as zip if its name ends in `.mar`, else as gzipped tar, whose
first folder it leaves out.
Source: ModelArchive.downloadModel and ZipUtils.decompressTarGzipFile of 0.12.0.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from serving.errors import ArchiveError


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[Callable[[str], bytes]]:
    """Yield a function that returns the content of the file with a given name.

    The function raises KeyError if there is no such file in the archive.

    Raises:
        OSError, zipfile.BadZipFile, tarfile.TarError: the archive cannot be read.
    """
    if path.is_dir():
        root = folder_root(path)

        def read_from_folder(name: str) -> bytes:
            try:
                # A manifest may name any file of the host, or one without an end.
                if is_inner(name) and (root / name).is_file():
                    return (root / name).read_bytes()
            except OSError:
                pass
            raise KeyError(f"there is no file {name} in it")

        yield read_from_folder
    elif _is_tar(path):
        with tarfile.open(path, "r:gz") as tar:
            members = {_without_first_folder(member.name): member for member in tar}

            def read_from_tar(name: str) -> bytes:
                file = tar.extractfile(members[name]) if name in members else None
                if file is None:
                    raise KeyError(f"there is no file {name} in it")
                return file.read()

            yield read_from_tar
    else:
        with zipfile.ZipFile(path) as mar:
            yield mar.read


def is_inner(name: str) -> bool:
    """Return whether the name of a file in an archive stays inside of the archive."""
    path = PurePosixPath(name.replace("\\", "/"))
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name


def folder_root(path: Path) -> Path:
    """Return the folder that TorchServe takes the files from: an only subfolder, else `path`."""
    entries = list(path.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else path


def unpack(path: Path, folder: Path) -> None:
    """Unpack an archive file, or link the entries of an archive folder, into a new folder.

    Raises:
        ArchiveError: a file would be outside of the folder.
    """
    folder.mkdir(parents=True)
    if path.is_dir():
        for entry in folder_root(path).iterdir():
            (folder / entry.name).symlink_to(entry)
    elif _is_tar(path):
        with tarfile.open(path, "r:gz") as tar:
            extract_files(tar, folder, _without_first_folder)
    else:
        with zipfile.ZipFile(path) as mar:
            mar.extractall(folder)


def extract_files(
    tar: tarfile.TarFile, folder: Path, rename: Callable[[str], str] = lambda name: name
) -> None:
    """Write the regular files of a tar file into a folder; links and devices are left out.

    Python's own filters need 3.11.4.

    Args:
        rename: returns the path in the folder of each member.

    Raises:
        ArchiveError: a file would be outside of the folder.
    """
    for member in tar:
        path = folder / rename(member.name)
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ArchiveError(
                f"the file {member.name!r} of the tar file would be outside of {folder}"
            )
        content = tar.extractfile(member) if member.isfile() else None
        if content is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                shutil.copyfileobj(content, file)
            path.chmod(0o755 if member.mode & 0o100 else 0o644)


def replace_file(folder: Path, name: str, text: str) -> None:
    """Write a file into a folder that `unpack` made; files behind links stay as they are."""
    *parents, _ = Path(name).parts
    for parent in parents:
        folder = folder / parent
        if folder.is_symlink():
            target = folder.readlink()
            folder.unlink()
            unpack(target, folder)
        folder.mkdir(exist_ok=True)
    path = folder / Path(name).name
    path.unlink(missing_ok=True)
    path.write_text(text)


def copy_archive(path: Path, changed: Mapping[str, str], new_path: Path) -> None:
    """Write a copy of an archive in the same form, with new text in some files."""
    if path.is_dir():
        shutil.copytree(folder_root(path), new_path)
        for name, text in changed.items():
            replace_file(new_path, name, text)
    elif _is_tar(path):
        _copy_tar(path, changed, new_path)
    else:
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(new_path, "w") as new:
            for entry in old.infolist():
                if entry.filename not in changed:
                    new.writestr(entry, old.read(entry))
            for name, text in changed.items():
                new.writestr(name, text, zipfile.ZIP_DEFLATED)


def _copy_tar(path: Path, changed: Mapping[str, str], new_path: Path) -> None:
    with tarfile.open(path, "r:gz") as old, tarfile.open(new_path, "w:gz") as new:
        first_folder = ""
        for member in old:
            name = _without_first_folder(member.name)
            first_folder = first_folder or member.name.partition("/")[0]
            if name not in changed:
                new.addfile(copy.copy(member), old.extractfile(member) if member.isfile() else None)
        for name, text in changed.items():
            content = text.encode()
            member = tarfile.TarInfo(f"{first_folder}/{name}")
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))


def digest(path: Path) -> str:
    """Return the SHA-256 of an archive file, or of the names and files of a folder, hexadecimal."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    total = hashlib.sha256()
    for file_path in sorted(p for p in path.rglob("*") if p.is_file()):
        with file_path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{content} {os.fspath(file_path.relative_to(path))}\n".encode())
    return total.hexdigest()


def _is_tar(path: Path) -> bool:
    return not path.name.endswith(".mar")


def _without_first_folder(name: str) -> str:
    return name.partition("/")[2]
