"""Which request is sent when: one dispatcher for a whole window, without a task for each request.

A dispatcher receives the results of its posts. One timer sends what is due, and one sweep ends the
posts that are overdue.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator

from yarl import URL

from loadgen.payloads import Payload
from loadgen.posting import Post, Poster
from loadgen.schedule import Closed, Share
from loadgen.window import Window

#: If more requests than this are outstanding in one process, further ones count as unsent.
MAX_OUTSTANDING = 8000
#: A post ends at most this long after its timeout, seconds.
SWEEP_S = 0.02
#: A late dispatcher yields after this many requests, so that they are written and answers read.
_YIELD_EVERY = 32


class Dispatcher:
    """Sends the requests of one window and records their results, as a `posting.Receiver`.

    Args:
        requests: the payloads, endless.
        url: receives the payloads that have no path.
    """

    def __init__(self, requests: Iterator[Payload], url: str):
        self._requests, self._url = requests, url
        self._loop = asyncio.get_running_loop()
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.Handle | None = None
        self._sweeper: asyncio.Handle | None = None
        self._outstanding = 0
        self._ended = False
        self._window: Window
        self._poster: Poster

    async def run(self, window: Window, poster: Poster) -> None:
        """Send until the window ends or is stopped, and wait for the outstanding requests."""
        self._window, self._poster = window, poster
        try:
            self._sweep()
            self._call(self._begin)
            await self._finished
        finally:
            self._ended = True
            for timer in (self._timer, self._sweeper):
                if timer is not None:
                    timer.cancel()

    def stop(self) -> None:
        """Send nothing more; the answers to outstanding requests are still awaited."""
        if self._ended:
            return
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._window.close()
        self._finish_if_idle()

    def answered(self, post: Post, status: int, body: bytes) -> None:
        """See `posting.Receiver`."""
        payload, due, sent = post
        try:
            if status not in payload.status:
                self.failed(post, self._status_cause(status, payload))
            elif not payload.accepts(body):
                self.failed(post, "wrong body")
            else:
                now = self._window.succeeded(due, sent, payload.group)
                self._outstanding -= 1
                self._continue(now)
        except Exception as error:
            self.broken(error)

    def _status_cause(self, status: int, payload: Payload) -> str:
        """Return the name under which a status is counted; an unknown path is named."""
        if status not in (404, 405):
            return f"status {status}"
        path = payload.path or URL(self._url).raw_path
        return f"status {status} for {payload.method} {path.partition('?')[0]}"

    def failed(self, post: Post, cause: str) -> None:
        """See `posting.Receiver`."""
        self._window.failed(post[1], cause, post[0].group)
        self._outstanding -= 1
        self._pause()

    def unsent(self, post: Post) -> None:
        """See `posting.Receiver`."""
        self._window.take_back_sent()
        self._outstanding -= 1
        self._pause()

    def broken(self, error: Exception) -> None:
        """See `posting.Receiver`: end the window with this error instead of without an end."""
        if not self._finished.done():
            self._finished.set_exception(error)

    def _begin(self) -> None:
        """Send the first requests."""
        raise NotImplementedError

    def _continue(self, now: float) -> None:
        """Go on after a success."""
        if self._ended:
            self._finish_if_idle()

    def _pause(self) -> None:
        """Go on after a failure."""
        self._finish_if_idle()

    def _resume(self) -> None:
        """Go on after the pause that follows a failure."""

    def _send(self, due: float, now: float) -> None:
        self._outstanding += 1
        self._window.sent(due, now)
        self._poster.post((next(self._requests), due, now))

    def _sweep(self) -> None:
        self._sweeper = self._loop.call_later(SWEEP_S, self._call, self._sweep)
        self._poster.expire(self._window.now() - self._window.load.timeout_s)
        self._window.count_buffered()
        self._resume()

    def _finish_if_idle(self) -> None:
        if self._ended and not self._outstanding and not self._finished.done():
            self._finished.set_result(None)

    def _call(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            self.broken(error)


class OpenLoop(Dispatcher):
    """Sends each request when it is due, whether or not earlier ones were answered.

    Args:
        dues: when requests are due, seconds after the window's start, ascending.
    """

    def __init__(self, requests: Iterator[Payload], url: str, dues: Iterator[float]):
        super().__init__(requests, url)
        self._dues = dues

    def _begin(self) -> None:
        self._due = next(self._dues, None)
        self._send_due()

    def _send_due(self) -> None:
        """Send everything that is due, then set the timer for the next request."""
        window = self._window
        for _ in range(_YIELD_EVERY):
            due, now = self._due, window.now()
            if due is None:
                wait_s = max(window.load.duration_s - now, 0.0)
                self._timer = self._loop.call_later(wait_s, self._call, self.stop)
                return
            if due > now:
                # Timers count milliseconds and may round down, which would cost a second one.
                wait_s = math.ceil((due - now) * 1000) / 1000
                self._timer = self._loop.call_later(wait_s, self._call, self._send_due)
                return
            self._due = next(self._dues, None)
            if now - due > window.load.timeout_s or self._outstanding >= MAX_OUTSTANDING:
                window.unsent()
            else:
                self._send(due, now)
        self._timer = self._loop.call_soon(self._call, self._send_due)


class ClosedLoop(Dispatcher):
    """Sends a user's next request when the last one is answered; after a failure, a little later.

    Args:
        schedule: the users of all processes.
        share: this process's part of them.
    """

    def __init__(self, requests: Iterator[Payload], url: str, schedule: Closed, share: Share):
        super().__init__(requests, url)
        self._users, self._left = share.of(schedule.users), math.inf
        if schedule.requests is not None:
            # Only a process that has a user can send.
            busy = min(share.count, schedule.users)
            self._left = Share(share.index, busy).of(schedule.requests) if self._users else 0
        self._paused = 0

    def _begin(self) -> None:
        self._timer = self._loop.call_later(self._window.load.duration_s, self._call, self.stop)
        for _ in range(int(min(self._users, self._left))):
            self._continue(self._window.now())
        if self._left <= 0 and not self._outstanding:
            self.stop()

    def _continue(self, now: float) -> None:
        if self._ended:
            self._finish_if_idle()
        elif self._left <= 0:
            self.stop()
        else:
            self._left -= 1
            self._send(now, now)

    def _pause(self) -> None:
        # A user whose requests are refused at once must not spin.
        self._paused += 1
        self._finish_if_idle()

    def _resume(self) -> None:
        paused, self._paused = self._paused, 0
        for _ in range(paused):
            self._continue(self._window.now())
