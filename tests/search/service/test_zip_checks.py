"""Zip files whose directory hides what TorchServe would unpack."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from search.service.file_checks import FileChecks, FileProblem
from search.service.zip_checks import zip_problem
from tests.archives import make_archive


def packed(*files: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, text in files:
            archive.writestr(name, text)
    return buffer.getvalue()


def problem_of(data: bytes) -> str | None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return zip_problem(archive)


def with_listed_size(data: bytes, old: int, new: int) -> bytes:
    """Change the unpacked size in the directory and in the local header."""
    return data.replace(struct.pack("<L", old), struct.pack("<L", new))


def streamed(method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a file written without seeking: the sizes follow each entry."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *arguments: int) -> int:
            raise OSError

        def tell(self) -> int:
            raise OSError

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", method) as archive:
        archive.writestr("a", b"a" * 999)
        archive.writestr("b", b"")
    return pipe.getvalue()


def zip64(content: bytes = b"abc") -> bytes:
    """Return a file whose local header has its sizes in a zip64 field."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("a", "w", force_zip64=True) as file:
        file.write(content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "make",
    [
        lambda: packed(),
        lambda: packed(("a/", b""), ("a/ü.py", b"x" * 4_000_000), ("b", b"")),
        lambda: packed(("a", b"x" * 99), method=zipfile.ZIP_STORED),
        streamed,
        zip64,
    ],
    ids=["empty", "deflated", "stored", "streamed", "zip64"],
)
def test_zip_problem_accepts_ordinary_files(make: Callable[[], bytes]) -> None:
    assert problem_of(make()) is None


def test_zip_problem_accepts_an_archive(tmp_path: Path) -> None:
    assert problem_of(make_archive(tmp_path).read_bytes()) is None


@pytest.mark.parametrize("beyond", [0, 4, 5, 130, 257, 258, 259])
def test_zip_problem_accepts_files_that_end_just_after_a_mebibyte(beyond: int) -> None:
    """The last bytes are unpacked after all packed ones were read."""
    assert problem_of(packed(("a", bytes((1 << 20) + beyond)))) is None


def test_zip_problem_finds_a_bomb_with_a_small_listed_size() -> None:
    data = packed(("a", bytes(7_654_321)))
    for size in (10, 7_654_320, 7_654_322):
        assert "a different size" in (problem_of(with_listed_size(data, 7_654_321, size)) or "")


def test_zip_problem_finds_a_hidden_entry() -> None:
    """The directory of the last file; before it, a file that only the local headers name."""
    hidden, shown = packed(("../../x", b"x")), packed(("a", b"x"))
    entry = hidden[: hidden.index(b"PK\x01\x02")]
    assert "bytes before" in (problem_of(entry + shown) or "")
    start = shown.index(b"PK\x01\x02")
    with zipfile.ZipFile(io.BytesIO(shown)) as archive:
        assert archive.start_dir == start
    moved = bytearray(shown[:start] + entry + shown[start:])
    struct.pack_into("<L", moved, len(moved) - 6, start + len(entry))
    assert "bytes before" in (problem_of(bytes(moved)) or "")


def test_zip_problem_finds_another_name_in_the_local_header() -> None:
    data = packed(("good/name", b"x")).replace(b"good/name", b"../../bad", 1)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == ["good/name"]
    assert "a different name" in (problem_of(data) or "")


def test_zip_problem_finds_overlapping_entries() -> None:
    """Entries that share their bytes unpack to much more than they have."""
    data = bytearray(packed(("a", bytes(1_000_000)), ("b", bytes(1_000_000))))
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    struct.pack_into("<L", data, second + 42, 0)
    assert problem_of(bytes(data)) is not None


def test_zip_problem_finds_a_repeated_name_and_an_unknown_compression() -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = packed(("a", b"1"), ("a", b"2"))
    assert "twice" in (problem_of(data) or "")
    assert "compressed in a form" in (
        problem_of(packed(("a", b"1"), method=zipfile.ZIP_LZMA)) or ""
    )


def test_check_archive_refuses_a_bomb_with_a_small_listed_size(tmp_path: Path) -> None:
    data = packed(("MAR-INF/MANIFEST.json", b"{}"), ("weights", bytes(7_654_321)))
    path = tmp_path / "a.mar"
    path.write_bytes(with_listed_size(data, 7_654_321, 10))
    with pytest.raises(FileProblem, match="'weights' has a different size"):
        FileChecks((tmp_path,)).check_archive(path, 1 << 20)


def test_zip_problem_finds_an_entry_in_the_content_of_another() -> None:
    """Java skips as many bytes as the local header states, and then finds the next header."""
    hidden = packed(("../../../evil", b"x"), method=zipfile.ZIP_STORED)
    content = b"abc" + hidden[: hidden.index(b"PK\x01\x02")]
    short = bytearray(packed(("a", content), method=zipfile.ZIP_STORED))
    struct.pack_into("<2L", short, 18, 3, 3)
    in_field = bytearray(zip64(content))
    start = in_field.index(struct.pack("<2Q", len(content), len(content)))
    struct.pack_into("<2Q", in_field, start, 3, 3)
    unused_field = bytearray(in_field)
    struct.pack_into("<2L", unused_field, 18, len(content), len(content))
    for data in (short, in_field, unused_field):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert archive.read("a") == content
        assert "'a' has a different size" in (problem_of(bytes(data)) or "")


def test_zip_problem_finds_stored_entries_whose_sizes_follow() -> None:
    assert "which Java refuses" in (problem_of(streamed(zipfile.ZIP_STORED)) or "")
