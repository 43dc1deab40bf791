"""What a load generator costs at least: the event loop, the kernel, and due times."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from typing import Any

from yarl import URL

from loadgen.dispatch import OpenLoop
from loadgen.histogram import Histogram
from loadgen.measurement import Load, Measurement
from loadgen.payloads import Payload, mix
from loadgen.posting import Post, Receiver
from loadgen.schedule import Constant, Share, due_times
from loadgen.window import Window


class _BareProtocol(asyncio.Protocol):
    """Posts again as soon as bytes arrive; it neither parses nor checks them."""

    def __init__(self, request: bytes):
        self._request, self.done = request, 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.done += 1
        self._transport.write(self._request)


async def run_bare_closed_loop(url: str, seconds: float, body: bytes, connections: int) -> int:
    """Run a closed loop; return the number of answers."""
    loop, parts = asyncio.get_running_loop(), URL(url)
    request = _request(parts, body)
    opened = [
        await loop.create_connection(
            lambda: _BareProtocol(request), str(parts.host), parts.port or 80
        )
        for _ in range(connections)
    ]
    await asyncio.sleep(seconds)
    for transport, _ in opened:
        transport.close()
    return sum(protocol.done for _, protocol in opened)


class _PostedProtocol(asyncio.Protocol):
    """Takes any bytes as the whole answer to its post."""

    def __init__(self, poster: BarePoster):
        self._poster = poster
        self.post: Post | None = None

    def connection_made(self, transport: Any) -> None:
        transport.set_write_buffer_limits(high=0)
        self.write = transport.write

    def data_received(self, data: bytes) -> None:
        post, self.post = self.post, None
        assert post is not None
        self._poster.free(self)
        self._poster.receiver.answered(post, 200, b"")


class BarePoster:
    """Writes prepared bytes and counts answers, without parsing them; see `posting.Poster`."""

    def __init__(self, receiver: Receiver, request: bytes):
        self.receiver, self._request = receiver, request
        self._idle: list[_PostedProtocol] = []
        self._waiting: deque[Post] = deque()

    def post(self, post: Post) -> None:
        """Write on an idle connection, or wait for one."""
        if self._idle:
            protocol = self._idle.pop()
            protocol.post = post
            protocol.write(self._request)
        else:
            self._waiting.append(post)

    def free(self, protocol: _PostedProtocol) -> None:
        """Use a connection for the post that waits longest."""
        self._idle.append(protocol)
        if self._waiting:
            self.post(self._waiting.popleft())

    def expire(self, due_before: float) -> None:
        """End nothing: a benchmark's server answers."""


async def run_bare_open_loop(
    url: str, seconds: float, payload: Payload, rate_rps: float, connections: int
) -> Measurement:
    """Run servetune's dispatcher on connections that only write and count."""
    loop, parts = asyncio.get_running_loop(), URL(url)
    load, requests = Load(Constant(rate_rps), seconds), mix([payload], Share())
    dispatcher = OpenLoop(requests, url, due_times(Constant(rate_rps), seconds))
    poster = BarePoster(dispatcher, _request(parts, payload.body))
    transports = []
    for _ in range(connections):
        transport, protocol = await loop.create_connection(
            lambda: _PostedProtocol(poster), str(parts.host), parts.port or 80
        )
        transports.append(transport)
        poster.free(protocol)
    window = Window(load)
    await dispatcher.run(window, poster)
    for transport in transports:
        transport.close()
    return window.result()


async def timer_lateness(rate_rps: float, seconds: float) -> Histogram:
    """Return how late timers are if nothing is sent: the share of the host and the event loop."""
    loop, late = asyncio.get_running_loop(), Histogram()
    finished = loop.create_future()
    start, numbers = time.perf_counter(), iter(range(1, round(rate_rps * seconds)))

    def fired(due_s: float) -> None:
        while (wait_s := due_s - (now := time.perf_counter() - start)) <= 0:
            late.record(now - due_s)
            if (number := next(numbers, None)) is None:
                finished.set_result(None)
                return
            due_s = number / rate_rps
        loop.call_later(math.ceil(1000 * wait_s) / 1000, fired, due_s)

    fired(0.0)
    await finished
    return late


def _request(parts: URL, body: bytes) -> bytes:
    head = f"POST {parts.raw_path_qs} HTTP/1.1\r\nHost: {parts.authority}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
