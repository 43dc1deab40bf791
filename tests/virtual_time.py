"""A virtual clock for the load generator: timers fire at once and advance the clock."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from loadgen.payloads import Payload
from loadgen.posting import Post, Poster, Receiver

T = TypeVar("T")


class VirtualClock(selectors.DefaultSelector):
    """A selector that advances `now` instead of waiting for a timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        #: CPU seconds used so far, a part of `now`.
        self.cpu_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        """Return ready files; without any, advance to the next timer."""
        ready = super().select(None if timeout is None else 0)
        if not ready and timeout:
            self.now += timeout
        return ready

    def work(self, seconds: float) -> None:
        """Use the CPU for `seconds`, during which nothing else runs."""
        self.now += seconds
        self.cpu_s += seconds

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on an event loop that reads this clock; return its result."""

        def loop() -> asyncio.AbstractEventLoop:
            event_loop = asyncio.SelectorEventLoop(self)
            event_loop.time = lambda: self.now  # type: ignore[method-assign]
            return event_loop

        with asyncio.Runner(loop_factory=loop) as runner:
            return runner.run(main)


def use_virtual_clock(monkeypatch: pytest.MonkeyPatch, service_s: float) -> VirtualClock:
    """Make clients and fleets read a virtual clock; answer each post after `service_s`."""
    clock = VirtualClock()

    class FixedPoster:
        def __init__(self, receiver: Receiver):
            self._receiver = receiver

        def post(self, post: Post) -> None:
            asyncio.get_running_loop().call_later(
                service_s, self._receiver.answered, post, 200, b"ok"
            )

        def expire(self, due_before: float) -> None:
            """Every answer comes in time."""

    @asynccontextmanager
    async def connections(
        url: str,
        payloads: Sequence[Payload],
        receiver: Receiver,
        fast: bool = True,
        ssl: object = True,
    ) -> AsyncIterator[Poster]:
        yield FixedPoster(receiver)

    now = SimpleNamespace(perf_counter=lambda: clock.now)
    monkeypatch.setattr("loadgen.client.time", now)
    monkeypatch.setattr("loadgen.fleet.time", now)
    monkeypatch.setattr("loadgen.window.time", now)
    monkeypatch.setattr("loadgen.window.thread_times", lambda: (clock.cpu_s, 0.0))
    monkeypatch.setattr("loadgen.client.connections_to", connections)
    return clock
