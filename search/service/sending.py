"""Write answers to clients; a client that does not read is disconnected."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import IO

from aiohttp import web

#: A client that reads nothing for this time is disconnected, seconds.
WRITE_LIMIT_S = 60.0
_CHUNK_BYTES = 1 << 16


async def write_part(answer: web.StreamResponse, request: web.Request, data: bytes) -> None:
    """Write a part of an answer.

    Raises:
        ConnectionResetError: the client does not read; its connection is closed.
    """
    try:
        async with asyncio.timeout(WRITE_LIMIT_S):
            await answer.write(data)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the client does not read its answer") from None


async def send_file(
    file: IO[bytes], request: web.Request, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Send a file from its start, and close it."""
    with file:
        answer = web.StreamResponse(headers=headers)
        answer.content_length = file.seek(0, 2)
        file.seek(0)
        await answer.prepare(request)
        while request.method != "HEAD" and (data := file.read(_CHUNK_BYTES)):
            await write_part(answer, request, data)
        await answer.write_eof()
        return answer


async def send_in_parts(answer: web.Response, request: web.Request) -> web.StreamResponse:
    """Send an answer in parts if it is large, so that unread ones do not fill the memory."""
    body = answer.body
    if not isinstance(body, bytes) or len(body) <= _CHUNK_BYTES or request.method == "HEAD":
        return answer
    sent = web.StreamResponse(status=answer.status, headers=answer.headers)
    sent.content_length = len(body)
    await sent.prepare(request)
    for start in range(0, len(body), _CHUNK_BYTES):
        await write_part(sent, request, body[start : start + _CHUNK_BYTES])
    await sent.write_eof()
    return sent
