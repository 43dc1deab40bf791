"""The watch over a running server, without a server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psutil
import pytest

from servetune.errors import FailureKind
from serving.archive import Archive
from serving.configuration.config import ServerConfig
from serving.errors import ServerError
from serving.installation import Installation
from serving.server import TorchServe
from serving.site import Site


@pytest.mark.parametrize(
    "error",
    [
        OSError(24, "Too many open files"),
        psutil.AccessDenied(1),
        FileNotFoundError(2, "No such file", "torchserve.log"),
        ValueError("x"),
    ],
)
@pytest.mark.parametrize("check", ["check_workers", "check_memory", "check_gpu"])
async def test_watch_reports_why_it_cannot_continue(
    archive: Archive,
    installation: Installation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    check: str,
) -> None:
    server = TorchServe(ServerConfig(), Site(archive, installation), tmp_path)
    server.models = {"pets": Mock(worker_pids=frozenset({1}))}
    server._failure = asyncio.get_running_loop().create_future()
    monkeypatch.setattr("serving.server._WATCH_S", 0.01)
    for name in ("check_workers", "check_memory", "check_gpu"):
        monkeypatch.setattr(server._health, name, lambda *_: None)

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(server._health, check, fail)
    await asyncio.wait_for(server._watch(), 60)
    problem = server._failure.result()
    assert isinstance(problem, ServerError) and problem.kind is FailureKind.INTERNAL_ERROR
    assert problem.host_fault and "could not be watched" in str(problem)
    assert type(error).__name__ in str(problem)
