"""Time-outs for many tasks at once, by one timer."""

from __future__ import annotations

import asyncio
from typing import Self

#: A task is ended at most this long after its time; asyncio.timeout sets a timer for each.
SWEEP_S = 0.02


class Deadlines:
    """Cancels tasks whose time is up. Times are to be given in about ascending order.

    Used as `with Deadlines() as deadlines`; a task calls `set`, and in the end `clear`, which
    says whether the cancellation that it met was this one's.
    """

    def __init__(self) -> None:
        self._times: dict[asyncio.Task[object], float] = {}

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(SWEEP_S, self._sweep)
        return self

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()

    def set(self, task: asyncio.Task[object], within_s: float) -> None:
        """Cancel the task unless it is cleared within so many seconds."""
        self._times[task] = self._loop.time() + within_s

    def clear(self, task: asyncio.Task[object]) -> bool:
        """Forget the task; True where its time was up and nobody else cancelled it."""
        if self._times.pop(task, None) is not None:
            return False
        return task.uncancel() == 0

    def _sweep(self) -> None:
        now = self._loop.time()
        overdue = []
        for task, time in self._times.items():
            if time > now:
                break
            overdue.append(task)
        for task in overdue:
            del self._times[task]
            task.cancel()
        self._timer = self._loop.call_later(SWEEP_S, self._sweep)
