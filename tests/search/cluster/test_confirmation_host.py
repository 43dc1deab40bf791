"""A measurement of a confirmation, with Ray replaced by futures."""

from __future__ import annotations

import asyncio
import gc
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from ray.exceptions import RayActorError, TaskCancelledError

from search.cluster import confirmation_host
from search.cluster.confirmation_host import ConfirmationHost
from search.trial.request import TrialOrigin, TrialRequest
from servetune.errors import FailureKind
from serving.configuration.config import ServerConfig


async def test_measure_that_is_cancelled_waits_for_the_task_and_reports_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tasks: list[Future[Any]] = [Future()]
    cancelled: list[object] = []

    def cancel(reference: object) -> None:
        cancelled.append(reference)
        tasks[0].set_exception(TaskCancelledError())

    monkeypatch.setattr(confirmation_host.ray, "cancel", cancel)
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    host = ConfirmationHost(MagicMock())
    host._actor = MagicMock()
    host._actor.measure.remote.return_value.future = lambda: tasks[0]
    request = TrialRequest(1, TrialOrigin.CONFIRMATION, ServerConfig())
    measuring = asyncio.ensure_future(host.measure(request, tmp_path, MagicMock()))
    await asyncio.sleep(0)
    measuring.cancel()
    await asyncio.wait({measuring})
    assert measuring.cancelled() and len(cancelled) == 1 and tasks[0].done()
    # A future reports an exception that nobody retrieved when it is deleted.
    del measuring
    tasks.clear()
    gc.collect()
    assert unhandled == []


async def test_measure_whose_process_is_lost_fails_and_reports_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A call for the events may notice the loss before the measurement's own call."""
    tasks: list[Future[Any]] = [Future()]
    unhandled: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unhandled.append(context))

    def events() -> asyncio.Future[Any]:
        found: asyncio.Future[Any] = loop.create_future()
        found.set_exception(RayActorError())
        return found

    host, actor = ConfirmationHost(MagicMock()), MagicMock()
    host._actor = actor
    actor.measure.remote.return_value.future = lambda: tasks[0]
    actor.take_events.remote = events
    request = TrialRequest(1, TrialOrigin.CONFIRMATION, ServerConfig())
    monkeypatch.setattr(confirmation_host, "HEARTBEAT_S", 0.01)
    lost = await host.measure(request, tmp_path, MagicMock())
    assert lost.failure is FailureKind.TRIAL_PROCESS_LOST and host._actor is None
    tasks[0].set_exception(RayActorError())
    await asyncio.sleep(0)
    tasks.clear()
    gc.collect()
    await asyncio.sleep(0)
    assert unhandled == []
