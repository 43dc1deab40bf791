"""Read the body of a submission, within limits of size and time."""

from __future__ import annotations

import asyncio
import errno
import re
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import BodyPartReader, web
from aiohttp.http import HttpProcessingError

from search.service.errors import RequestError

T = TypeVar("T")

_MAX_SPEC_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16
#: Seconds without a byte after which a request is given up.
_STALL_S = 30.0
#: A request is given up if it is slower than this after `_STALL_S`.
_MIN_BYTES_PER_S = 1000.0
#: Bytes around the parts of a multipart body.
_OVERHEAD_BYTES = 1 << 16
_POLL_S = 0.5
_PARTS = ("spec", "archive", "requests")
#: A file name becomes a value in config.properties, and a path.
_FILE_NAME = re.compile(r"\w[\w .+-]{0,199}")


async def read_submission(
    request: web.Request, folder: Path, max_bytes: int
) -> tuple[bytes, dict[str, Path]]:
    """Return the specification and the uploaded files, which are written into `folder`.

    Args:
        max_bytes: of the whole body.

    Raises:
        RequestError: the body is too large or too slow, or cannot be read.
    """
    _check_head(request, max_bytes)
    work = _read(request, folder, max_bytes)
    try:
        return await _limited(work, request, max_bytes + _OVERHEAD_BYTES)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RequestError(507, "the service has no space left for the files") from None
        raise RequestError(400, f"the body cannot be read: {error.strerror}") from None
    except (HttpProcessingError, ValueError) as error:
        raise RequestError(400, f"the body cannot be read: {error}") from None


async def read_text(request: web.Request) -> bytes:
    """Return the specification that is the whole body of a request.

    Raises:
        RequestError: the body is too large or too slow, or cannot be read.
    """
    _check_head(request, _MAX_SPEC_BYTES)
    work = _read_specification(request.content.iter_chunked(_CHUNK_BYTES))
    try:
        return await _limited(work, request, _MAX_SPEC_BYTES + _OVERHEAD_BYTES)
    except (OSError, HttpProcessingError, ValueError) as error:
        raise RequestError(400, f"the body cannot be read: {error}") from None


def _check_head(request: web.Request, max_bytes: int) -> None:
    """Refuse a body by its head, before any of it is read."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise RequestError(415, "the body must not be compressed: Content-Encoding is not allowed")
    if (request.content_length or 0) > max_bytes:
        raise _too_large(max_bytes)


async def _limited(work: Coroutine[Any, Any, T], request: web.Request, max_bytes: int) -> T:
    """Return the result of `work`, which reads a body; stop it if the body exceeds a limit."""
    task = asyncio.ensure_future(work)
    started_s = progress_s = time.monotonic()
    received = 0
    try:
        while not (await asyncio.wait({task}, timeout=_POLL_S))[0]:
            now_s, before = time.monotonic(), received
            received = request.content.total_bytes
            if received > max_bytes:
                raise _too_large(max_bytes)
            progress_s = now_s if received > before else progress_s
            elapsed_s = now_s - started_s
            is_slow = elapsed_s > _STALL_S and received < _MIN_BYTES_PER_S * (elapsed_s - _STALL_S)
            if is_slow or now_s - progress_s > _STALL_S:
                raise RequestError(408, "the body arrives too slowly; send the request again")
        return task.result()
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _read(
    request: web.Request, folder: Path, max_bytes: int
) -> tuple[bytes, dict[str, Path]]:
    if not request.content_type.startswith("multipart/"):
        return await _read_specification(request.content.iter_chunked(_CHUNK_BYTES)), {}
    text: bytes | None = None
    uploads: dict[str, Path] = {}
    bytes_left = max_bytes
    reader = await request.multipart()
    while (part := await reader.next()) is not None:
        if not isinstance(part, BodyPartReader):
            raise RequestError(400, "a part of the body must not be multipart itself")
        if part.name not in _PARTS:
            known = ", ".join(_PARTS)
            raise RequestError(400, f"unknown part {part.name!r}; known parts are {known}")
        if part.name in uploads or (part.name == "spec" and text is not None):
            raise RequestError(400, f"the part {part.name!r} is repeated; send it once")
        if part.name == "spec":
            text = await _read_specification(_chunks(part))
            continue
        # The model store needs the archive's file name; the client's folders are dropped.
        name = Path(part.filename or part.name).name
        if not _FILE_NAME.fullmatch(name):
            raise RequestError(
                400,
                f"the file name of {part.name} must consist of letters, digits, spaces and ._+- "
                f"(got {name[:100]!r})",
            )
        path = folder / "uploads" / part.name / name
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            async for chunk in _chunks(part):
                if (bytes_left := bytes_left - len(chunk)) < 0:
                    raise _too_large(max_bytes)
                file.write(chunk)
        uploads[part.name] = path
    return text or b"", uploads


def _too_large(max_bytes: int) -> RequestError:
    return RequestError(413, f"the request is larger than {max_bytes} bytes")


async def _chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
    while chunk := await part.read_chunk(_CHUNK_BYTES):
        yield chunk


async def _read_specification(chunks: AsyncIterator[bytes]) -> bytes:
    text = b""
    async for chunk in chunks:
        text += chunk
        if len(text) > _MAX_SPEC_BYTES:
            raise RequestError(413, f"the specification is larger than {_MAX_SPEC_BYTES} bytes")
    return text
