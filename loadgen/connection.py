"""Connections to one server; the only module that uses aiohttp's internals.

A `ClientSession` creates a task, a request, a timer, a writer, a parser and a response for each
post. `Connections` keeps aiohttp's connector, renders each payload once, and has one state
machine for each connection. `Sessions` is the fallback, for what `Connections` does not support.
"""

from __future__ import annotations

import asyncio
import inspect
import ssl as tls
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from yarl import URL

from loadgen.http_connection import HttpConnection
from loadgen.payloads import Payload
from loadgen.posting import Post, Poster, Receiver, report_failure
from servetune.errors import InputError

#: Not sent unless a payload has it: compressing answers would add to the server's work.
_OMITTED_HEADERS = frozenset({"Accept-Encoding"})
#: These change how a body is sent, not only the head.
_SPECIAL_HEADERS = {"expect"}
#: Encodings of answers that `Connections` reads.
_ENCODINGS = {"gzip", "deflate", "identity", ""}
#: A longer body is written separately from its head, so that it is not kept twice.
_JOINED_BYTES = 65536
#: Stands for any payload when a connection is opened.
_NO_PAYLOAD = Payload(b"")
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)


@asynccontextmanager
async def connections_to(
    url: str,
    payloads: Sequence[Payload],
    receiver: Receiver,
    fast: bool = True,
    ssl: tls.SSLContext | bool = True,
) -> AsyncIterator[Poster]:
    """Open keep-alive connections to one URL, one per concurrent post; close all at the end.

    Args:
        payloads: the payloads that will be posted.
        receiver: receives the results.
        fast: False for a plain `ClientSession`, which is also used if a payload or the
            installed aiohttp needs it.
        ssl: settings of connections to an https URL; aiohttp's own if True.

    Raises:
        InputError: the URL is not valid.
    """
    check_url(url)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, ssl=ssl),
        timeout=_NO_TIMEOUT,
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        poster: Connections | Sessions
        if fast and _fits_connections(url, payloads) and supported(session.connector):
            poster = Connections(session, url, receiver)
        else:
            poster = Sessions(session, url, receiver)
        try:
            yield poster
        finally:
            await poster.close()


def check_url(url: str) -> None:
    """Check that a URL has a host to which a connection can be tried.

    Raises:
        InputError: the URL is not valid.
    """
    try:
        host = URL(url).host
        # A resolver would raise the same for each request.
        (host or "").encode("idna")
    except ValueError as error:
        raise InputError(f"the URL {url!r} is not valid: {error}") from None
    if not host:
        raise InputError(f"the URL {url!r} is not valid: it has no host")


def target_url(base: URL, payload: Payload) -> URL:
    """Return the URL that receives a payload: `base`, or the payload's path at its root."""
    if payload.path is None:
        return base
    return URL(f"{base.scheme}://{base.raw_authority}{payload.path}", encoded=True)


class Sessions:
    """Posts by `ClientSession.request`, in one task for each."""

    def __init__(self, session: aiohttp.ClientSession, url: str, receiver: Receiver):
        self._session, self._url, self._receiver = session, URL(url), receiver
        self._posts: dict[asyncio.Task[None], Post] = {}
        self._expired: set[asyncio.Task[None]] = set()

    def post(self, post: Post) -> None:
        """See `Poster.post`."""
        task = asyncio.create_task(self._exchange(post))
        self._posts[task] = post
        task.add_done_callback(self._expired.discard)

    def expire(self, due_before: float) -> None:
        """See `Poster.expire`."""
        overdue = [task for task, (_, due, _) in self._posts.items() if due < due_before]
        for task in overdue:
            self._expired.add(task)
            task.cancel()
            self._receiver.failed(self._posts.pop(task), "timeout")

    async def close(self) -> None:
        """Cancel every post, and wait for its end."""
        tasks = [*self._posts, *self._expired]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _exchange(self, post: Post) -> None:
        payload, task = post[0], asyncio.current_task()
        assert task is not None
        try:
            async with self._session.request(
                payload.method,
                target_url(self._url, payload),
                data=payload.content,
                headers=payload.headers,
                skip_auto_headers=_OMITTED_HEADERS,
                allow_redirects=False,
            ) as answer:
                body = await answer.read()
        except Exception as error:
            if self._posts.pop(task, None):
                report_failure(self._receiver, post, error)
        else:
            if self._posts.pop(task, None):
                self._receiver.answered(post, answer.status, body)
        finally:
            self._posts.pop(task, None)


class Connections:
    """Posts prepared bytes on connections that the session's connector opens.

    A post without an idle connection waits for the first that is opened or freed. A connection
    that the server closed while idle is replaced before anything is sent. If it is closed after
    the request was sent, the request failed: it may have been served.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, receiver: Receiver):
        connector: Any = session.connector
        self._session, self._connector = session, connector
        self._url, self.receiver = URL(url), receiver
        self._loop = asyncio.get_running_loop()
        connector._factory = lambda: HttpConnection(self)
        self._target = self._request()
        self._connections: set[HttpConnection] = set()
        self._all_lost = asyncio.Event()
        self._idle: list[HttpConnection] = []
        self._waiting: deque[Post] = deque()
        #: Tasks that open a connection, and when they began: at least one for each waiting post.
        self._opening: dict[asyncio.Task[None], float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # The payload is kept with its bytes, so that its id is not reused.
        self._prepared: dict[int, tuple[Payload, tuple[bytes, ...]]] = {}

    def post(self, post: Post) -> None:
        """See `Poster.post`."""
        prepared = self._prepared.get(id(post[0]))
        if prepared is None:
            try:
                prepared = self._prepare(post[0])
            except Exception as error:
                report_failure(self.receiver, post, error)
                return
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.is_open and not connection.transport.is_closing():
                connection.send(post, prepared[1])
                return
        self._waiting.append(post)
        self._open_for_waiting(post[2])

    def freed(self, connection: HttpConnection) -> None:
        """Send the post that waits longest, if there is one."""
        if self._waiting:
            post = self._waiting.popleft()
            connection.send(post, self._prepared[id(post[0])][1])
        else:
            self._idle.append(connection)

    def lost(self, connection: HttpConnection) -> None:
        """Forget a connection that has ended."""
        if connection.lease is not None:
            connection.lease.close()
        self._connections.discard(connection)
        if not self._connections:
            self._all_lost.set()

    def expire(self, due_before: float) -> None:
        """See `Poster.expire`."""
        for connection in [
            c for c in self._connections if c.post is not None and c.post[1] < due_before
        ]:
            connection.fail("timeout")
        while self._waiting and self._waiting[0][1] < due_before:
            self.receiver.failed(self._waiting.popleft(), "timeout")
        overdue = [task for task, begun in self._opening.items() if begun < due_before]
        for task in overdue:
            del self._opening[task]
            task.cancel()
        if overdue and self._waiting:
            self._open_for_waiting(self._waiting[-1][2])

    async def close(self) -> None:
        """Close every connection, and wait for its end; posts get no further result."""
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._idle.clear()
        for connection in list(self._connections):
            connection.abort()
        if self._connections:
            self._all_lost.clear()
            await self._all_lost.wait()

    def _open_for_waiting(self, now: float) -> None:
        """Open connections until there is one for each waiting post."""
        for _ in range(len(self._waiting) - len(self._opening)):
            task = self._loop.create_task(self._open())
            self._opening[task] = now
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _open(self) -> None:
        """Open a connection for the post that waits longest."""
        task: Any = asyncio.current_task()
        try:
            lease = await self._connector.connect(self._target, [], _NO_TIMEOUT)
        except Exception as error:
            self._opening.pop(task, None)
            if self._waiting:
                report_failure(self.receiver, self._waiting.popleft(), error)
            return
        self._opening.pop(task, None)
        connection: HttpConnection = lease.protocol
        connection.lease = lease
        if connection.is_open:
            self._connections.add(connection)
            self.freed(connection)
            return
        lease.close()
        if self._waiting:
            self.receiver.failed(self._waiting.popleft(), "reset")

    def _request(self, payload: Payload = _NO_PAYLOAD) -> aiohttp.ClientRequest:
        return aiohttp.ClientRequest(
            payload.method,
            target_url(self._url, payload),
            headers=payload.headers,
            skip_auto_headers=_OMITTED_HEADERS,
            data=payload.content,
            loop=self._loop,
            session=self._session,
        )

    def _prepare(self, payload: Payload) -> tuple[Payload, tuple[bytes, ...]]:
        """Render a payload: the only place in which one becomes bytes."""
        request = self._request(payload)
        lines = [f"{payload.method} {request.url.raw_path_qs} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        head = "\r\n".join([*lines, "", ""]).encode()
        joined = len(payload.body) <= _JOINED_BYTES
        pieces = (head + payload.body,) if joined else (head, payload.body)
        prepared = self._prepared[id(payload)] = payload, pieces
        return prepared


def _fits_connections(url: str, payloads: Sequence[Payload]) -> bool:
    """Return whether `Connections` can post these payloads to this URL."""
    if URL(url).scheme not in ("http", "https"):
        return False
    if any(payload.method == "HEAD" for payload in payloads):
        return False  # Its answer announces a body that does not follow.
    for payload in payloads:
        headers = {name.lower(): value for name, value in payload.headers.items()}
        encodings = headers.get("accept-encoding", "").lower().split(",")
        if headers.keys() & _SPECIAL_HEADERS:
            return False
        if not {encoding.partition(";")[0].strip() for encoding in encodings} <= _ENCODINGS:
            return False
    return True


def supported(connector: Any) -> bool:
    """Return whether the installed aiohttp has the internals that `Connections` uses."""
    try:
        parameters = list(inspect.signature(connector.connect).parameters)
        return parameters == ["req", "traces", "timeout"] and callable(connector._factory)
    except (AttributeError, TypeError, ValueError):
        return False
