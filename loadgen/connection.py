"""Send requests to one server; the only module that uses aiohttp's internals.

A `ClientSession` creates a request, a timer, a writer, a parser and a response for each post.
`Connections` keeps aiohttp's connector, protocol and C parser, and renders each payload once.
`Sessions` posts through the public interface, for what `Connections` does not support.
"""

from __future__ import annotations

import asyncio
import ssl as tls
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import Any, Protocol

import aiohttp
from aiohttp.http import HttpProcessingError, RawResponseMessage
from yarl import URL

try:
    from aiohttp.client_proto import ResponseHandler
except ImportError:  # Another aiohttp: `supported` returns False.
    ResponseHandler = object  # type: ignore[assignment,misc]

from loadgen.deadlines import Deadlines
from loadgen.payloads import Payload
from servetune.errors import InputError

#: Not sent unless a payload has it: compressing answers would add to the server's work.
_OMITTED_HEADERS = frozenset({"Accept-Encoding"})
#: These change how a body is sent, not only the head.
_BODY_HEADERS = {"expect"}
#: A longer body is written separately from its head, so that it is not kept twice.
_JOINED_BYTES = 65536


class Poster(Protocol):
    """Posts a payload and returns the answer's status and whole body."""

    async def post(self, payload: Payload, within_s: float) -> tuple[int, bytes]:
        """Post once; follow no redirect and repeat nothing.

        Raises:
            TimeoutError: no whole answer within `within_s` seconds.
            aiohttp.ClientError: as a `ClientSession` raises it.
        """
        ...


@asynccontextmanager
async def connections_to(
    url: str,
    payloads: Sequence[Payload],
    fast: bool = True,
    ssl: tls.SSLContext | bool = True,
) -> AsyncIterator[Poster]:
    """Open keep-alive connections to one URL, one per concurrent post.

    Args:
        payloads: the payloads that will be posted.
        fast: False for a plain `ClientSession`, which is also used if a payload or the
            installed aiohttp needs it.
        ssl: settings of connections to an https URL; aiohttp's own if True.

    Raises:
        InputError: the URL is not valid.
    """
    try:
        # A resolver would raise the same for each request.
        (URL(url).host or "").encode("idna")
    except ValueError as error:
        raise InputError(f"the URL {url!r} is not valid: {error}") from None
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, ssl=ssl),
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        has_factory = hasattr(session.connector, "_factory")
        if not (fast and has_factory and _fits_connections(url, payloads) and supported()):
            yield Sessions(session, url)
            return
        with Deadlines() as deadlines:
            connections = Connections(session, url, deadlines)
            try:
                yield connections
            finally:
                connections.close()


def target_url(base: URL, payload: Payload) -> URL:
    """Return the URL that receives a payload: `base`, or the payload's path at its root."""
    if payload.path is None:
        return base
    return URL(f"{base.scheme}://{base.raw_authority}{payload.path}", encoded=True)


class Sessions:
    """Posts by `ClientSession.request`."""

    def __init__(self, session: aiohttp.ClientSession, url: str):
        self._session, self._url = session, URL(url)

    async def post(self, payload: Payload, within_s: float) -> tuple[int, bytes]:
        """See `Poster.post`."""
        async with (
            asyncio.timeout(within_s),
            self._session.request(
                payload.method,
                target_url(self._url, payload),
                data=payload.content,
                headers=payload.headers,
                skip_auto_headers=_OMITTED_HEADERS,
                allow_redirects=False,
            ) as answer,
        ):
            return answer.status, await answer.read()


class _Handler(ResponseHandler):
    """aiohttp's protocol without one queue: an answer goes straight to its waiter."""

    def answer(self) -> asyncio.Future[tuple[RawResponseMessage, aiohttp.StreamReader]]:
        """Return the next answer's head and its body, which may still be arriving."""
        waiter = self._waiter = self._loop.create_future()
        if self._buffer:
            waiter.set_result(self._buffer.popleft()[0])
        elif self._exception is not None:
            waiter.set_exception(self._exception)
        return waiter

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Receive a parsed head, and the part of the body that came with it."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            super().feed_data(data, size)
        else:
            self._waiter = None
            waiter.set_result(data)


class Connections:
    """Posts prepared bytes on connections that the session's connector has opened.

    A connection that the server closed while idle is replaced before anything is sent. If it is
    closed after the request was sent, the request failed: it may have been served.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, deadlines: Deadlines):
        connector: Any = session.connector
        self._session, self._connector = session, connector
        self._url, self._deadlines = URL(url), deadlines
        self._loop = asyncio.get_running_loop()
        connector._factory = partial(_Handler, loop=self._loop)
        self._idle: list[tuple[Any, aiohttp.connector.Connection]] = []
        # The payload is kept with its bytes, so that its id is not reused.
        self._prepared: dict[int, tuple[Payload, list[bytes]]] = {}

    async def post(self, payload: Payload, within_s: float) -> tuple[int, bytes]:
        """See `Poster.post`. A single coroutine, because further ones cost CPU at high rates."""
        task: Any = asyncio.current_task(self._loop)
        self._deadlines.set(task, within_s)
        connection = None
        try:
            pieces = (self._prepared.get(id(payload)) or self._prepare(payload))[1]
            while self._idle:
                protocol, connection = self._idle.pop()
                # Data that was not asked for belongs to no request.
                if protocol.is_connected() and not len(protocol):
                    break
                connection.close()
            else:
                protocol, connection = await self._connect(payload)
                if not protocol.is_connected():
                    raise aiohttp.ClientConnectionResetError("closed before the request")
            for piece in pieces:
                protocol.transport.write(piece)
            message, body = await protocol.answer()
            while message.code < 200 and message.code != 101:
                message, body = await protocol.answer()
            if body.is_eof() and body.exception() is None:
                # `body.read` would run the parser once more on no data.
                data = b"".join(getattr(body, "_buffer", ()))
            else:
                data = await body.read()
        except BaseException as error:
            if connection is not None:
                connection.close()
            if self._deadlines.clear(task) and isinstance(error, asyncio.CancelledError):
                raise TimeoutError from None
            if isinstance(error, HttpProcessingError):
                raise aiohttp.ClientResponseError(
                    self._request(payload).request_info, (), message=error.message
                ) from error
            raise
        self._deadlines.clear(task)
        if protocol.should_close or protocol.transport.get_write_buffer_size():
            connection.close()
        else:
            self._idle.append((protocol, connection))
        return message.code, data

    def close(self) -> None:
        """Close the idle connections; the others belong to their posts."""
        for _, connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _connect(self, payload: Payload) -> tuple[Any, aiohttp.connector.Connection]:
        connection = await self._connector.connect(
            self._request(payload), [], aiohttp.ClientTimeout(total=None)
        )
        protocol = connection.protocol
        protocol.set_response_params(read_until_eof=True)
        return protocol, connection

    def _request(self, payload: Payload) -> aiohttp.ClientRequest:
        return aiohttp.ClientRequest(
            payload.method,
            target_url(self._url, payload),
            headers=payload.headers,
            skip_auto_headers=_OMITTED_HEADERS,
            data=payload.content,
            loop=self._loop,
            session=self._session,
        )

    def _prepare(self, payload: Payload) -> tuple[Payload, list[bytes]]:
        request = self._request(payload)
        lines = [f"{payload.method} {request.url.raw_path_qs} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        head = "\r\n".join([*lines, "", ""]).encode()
        joined = len(payload.body) <= _JOINED_BYTES
        pieces = [head + payload.body] if joined else [head, payload.body]
        prepared = self._prepared[id(payload)] = payload, pieces
        return prepared


def _fits_connections(url: str, payloads: Sequence[Payload]) -> bool:
    """Return whether `Connections` can post these payloads to this URL."""
    if any(payload.method == "HEAD" for payload in payloads):
        return False  # Its answer announces a body that does not follow.
    names = {name.lower() for payload in payloads for name in payload.headers}
    return URL(url).scheme in ("http", "https") and not names & _BODY_HEADERS


@cache
def supported() -> bool:
    """Return whether the installed aiohttp has the internals that `Connections` uses."""
    try:
        return _internals_work()
    except Exception:
        return False


def _internals_work() -> bool:
    """Return whether a `_Handler` parses two answers as expected."""

    class NullTransport(asyncio.Transport):
        def is_closing(self) -> bool:
            return False

    protocol = _Handler(asyncio.get_running_loop())
    protocol.connection_made(NullTransport())
    protocol.set_response_params(read_until_eof=True)
    for body in (
        b"Content-Length: 2\r\n\r\nok",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ):
        answer = protocol.answer()
        protocol.data_received(b"HTTP/1.1 200 OK\r\n" + body)
        message, payload = answer.result()
        if message.code != 200 or not payload.is_eof() or payload.exception() is not None:
            return False
        if b"".join(payload._buffer) != b"ok":
            return False
        if protocol.should_close or len(protocol) or not protocol.is_connected():
            return False
    return True
