"""Timeouts for many tasks at once, by one timer."""

from __future__ import annotations

import asyncio
from typing import Self

#: A task is cancelled at most this long after its deadline, seconds.
SWEEP_S = 0.02


class Deadlines:
    """Cancels tasks at their deadlines, which must be set in about ascending order.

    A context manager. A task calls `set`, and at its end `clear`, which returns whether the task
    was cancelled here. asyncio.timeout would set one timer for each task.
    """

    def __init__(self) -> None:
        self._deadlines: dict[asyncio.Task[object], float] = {}

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(SWEEP_S, self._sweep)
        return self

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()

    def set(self, task: asyncio.Task[object], within_s: float) -> None:
        """Cancel the task unless it is cleared within `within_s` seconds."""
        self._deadlines[task] = self._loop.time() + within_s

    def clear(self, task: asyncio.Task[object]) -> bool:
        """Forget the task; return whether its deadline, and nothing else, cancelled it."""
        if self._deadlines.pop(task, None) is not None:
            return False
        return task.uncancel() == 0

    def _sweep(self) -> None:
        now = self._loop.time()
        overdue = []
        for task, deadline in self._deadlines.items():
            if deadline > now:
                break
            overdue.append(task)
        for task in overdue:
            del self._deadlines[task]
            task.cancel()
        self._timer = self._loop.call_later(SWEEP_S, self._sweep)
