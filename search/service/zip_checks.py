"""Check that the directory of a zip file lists what a reader without it finds.

Python reads the directory at the end. TorchServe reads the file from its start, and unpacks what
each local header announces: other names, or more bytes than the directory states.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import IO

_HEADER = struct.Struct("<4s5H3L2H")
_SIGNATURE = b"PK\x03\x04"
_CHUNK_BYTES = 1 << 20
_HAS_DESCRIPTOR, _IS_UTF8 = 1 << 3, 1 << 11
#: A field of a local header with 4 bytes that refers to the extra field of this number.
_IN_ZIP64, _ZIP64 = 0xFFFFFFFF, 1
#: Sizes of the descriptor behind an entry: with 4 or 8 bytes per size, and a signature or none.
_DESCRIPTOR_BYTES = (12, 16, 20, 24)


def zip_problem(archive: zipfile.ZipFile) -> str | None:
    """Return what a reader without the directory would find; None if it finds the same.

    Every entry is unpacked, and nothing of it is kept.

    Raises:
        OSError, zlib.error: the file cannot be read.
    """
    infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
    if names := [name for name, count in Counter(i.filename for i in infos).items() if count > 1]:
        return f"it has the file {names[0][:100]!r} twice"
    file = archive.fp
    assert file is not None
    ends = {0}
    for info in infos:
        shown = repr(info.filename[:100])
        if info.header_offset not in ends:
            return (
                f"there are bytes before {shown} that the directory of the zip file does not list"
            )
        file.seek(info.header_offset)
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size or not header.startswith(_SIGNATURE):
            return f"{shown} is not at the position that the directory of the zip file states"
        _, _, flags, method, _, _, _, *sizes, name_bytes, extra_bytes = _HEADER.unpack(header)
        encoding = "utf-8" if flags & _IS_UTF8 else "cp437"
        if file.read(name_bytes).decode(encoding, "replace") != info.orig_filename:
            return f"{shown} has a different name in the directory of the zip file"
        start = info.header_offset + _HEADER.size + name_bytes + extra_bytes
        if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or method != info.compress_type:
            return f"{shown} is compressed in a form that TorchServe does not read"
        has_descriptor = bool(flags & _HAS_DESCRIPTOR)
        if has_descriptor and method == zipfile.ZIP_STORED:
            return f"{shown} is not compressed and states its size behind it, which Java refuses"
        extra = file.read(extra_bytes)
        is_alike = has_descriptor or _local_sizes(sizes, extra) == {
            (info.compress_size, info.file_size)
        }
        file.seek(start)
        if not is_alike or not _has_listed_size(file, info):
            return f"{shown} has a different size in the directory of the zip file"
        end = start + info.compress_size
        ends = {end + size for size in _DESCRIPTOR_BYTES} if has_descriptor else {end}
    if archive.start_dir not in ends:
        return "there are bytes before the directory of the zip file that it does not list"
    return None


def _local_sizes(sizes: Sequence[int], extra: bytes) -> set[tuple[int, ...]]:
    """Return each pair of packed and unpacked size that a local header states.

    Java takes the sizes of a zip64 field even if the header does not refer to it.
    """
    found = set[tuple[int, ...]]()
    while len(extra) >= 4:
        number, length = struct.unpack_from("<2H", extra)
        if number == _ZIP64 and length >= 16 and len(extra) >= 20:
            unpacked, packed = struct.unpack_from("<2Q", extra, 4)
            found.add((packed, unpacked))
        extra = extra[4 + length :]
    found = found or {(sizes[0], sizes[1])}
    # A size that does not refer to the zip64 field must agree with it.
    referred = {
        tuple(inner if size == _IN_ZIP64 else size for size, inner in zip(sizes, pair, strict=True))
        for pair in found
    }
    return {*found, *referred}


def _has_listed_size(file: IO[bytes], info: zipfile.ZipInfo) -> bool:
    """Return whether an entry, which starts here, has the sizes that the directory states."""
    if info.compress_type == zipfile.ZIP_STORED:
        return info.compress_size == info.file_size
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    total = 0
    for chunk in _chunks(file, info.compress_size):
        data = chunk
        while data and not inflater.eof:
            total += len(inflater.decompress(data, _CHUNK_BYTES))
            if total > info.file_size:
                return False
            data = inflater.unconsumed_tail
        if inflater.unused_data:
            return False
    # The bytes of a match may be unpacked after all packed ones were read.
    while not inflater.eof and (rest := inflater.decompress(b"", _CHUNK_BYTES)):
        total += len(rest)
        if total > info.file_size:
            return False
    return inflater.eof and total == info.file_size


def _chunks(file: IO[bytes], size: int) -> Iterator[bytes]:
    while size > 0 and (chunk := file.read(min(size, _CHUNK_BYTES))):
        size -= len(chunk)
        yield chunk
