"""Tests of the deadlines of tasks."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from loadgen.deadlines import Deadlines


@pytest.mark.parametrize(
    ("within_s", "cancel", "raised"),
    [(0.0, False, TimeoutError), (60.0, True, asyncio.CancelledError)],
)
async def test_deadlines_clear_distinguishes_a_cancellation(
    within_s: float, cancel: bool, raised: type[BaseException]
) -> None:
    with Deadlines() as deadlines:

        async def waiting() -> None:
            task: Any = asyncio.current_task()
            deadlines.set(task, within_s)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if deadlines.clear(task):
                    raise TimeoutError from None
                raise

        task = asyncio.create_task(waiting())
        await asyncio.sleep(0)
        if cancel:
            task.cancel()
        with pytest.raises(raised):
            await task


async def test_deadlines_leave_a_task_usable() -> None:
    """The cancellation is taken back, so that it does not affect the next wait."""
    with Deadlines() as deadlines:
        task: Any = asyncio.current_task()
        waits: list[Callable[[], Awaitable[Any]]] = [asyncio.Event().wait] * 2
        for wait in waits:
            deadlines.set(task, 0.0)
            with pytest.raises(asyncio.CancelledError):
                await wait()
            assert deadlines.clear(task)
        deadlines.set(task, 60.0)
        await asyncio.sleep(0)
        assert not deadlines.clear(task)
        assert task.cancelling() == 0
