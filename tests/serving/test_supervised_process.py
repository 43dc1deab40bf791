"""A small process under a supervisor."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from serving.errors import ServerError
from serving.leftovers import HOME_PREFIX
from serving.supervised_process import SupervisedProcess


@pytest.fixture
def request_of(tmp_path: Path) -> Any:
    home = tmp_path / f"{HOME_PREFIX}test-{os.getpid()}"
    home.mkdir()

    def build(*argv: str) -> dict[str, Any]:
        log = str(tmp_path / "log")
        return {"argv": argv, "environment": {}, "folder": "/", "log": log, "home": str(home)}

    return build


async def test_supervised_process_is_stopped_and_its_folder_removed(request_of: Any) -> None:
    process = SupervisedProcess()
    request = request_of("/bin/sleep", "60")
    await process.start(request)
    assert psutil.Process(process.pid).name() == "sleep"
    assert not await process.has_exited(within_s=0.1)
    await asyncio.wait_for(process.stop(), 30)
    assert process.status is not None and process.status < 0
    assert not psutil.pid_exists(process.pid) and not Path(request["home"]).exists()


async def test_supervised_process_reports_the_exit_status(request_of: Any) -> None:
    process = SupervisedProcess()
    await process.start(request_of(sys.executable, "-c", "raise SystemExit(3)"))
    assert await process.has_exited(within_s=30) and process.status == 3
    await asyncio.wait_for(process.stop(), 30)


async def test_supervised_process_reports_a_command_that_is_missing(request_of: Any) -> None:
    process = SupervisedProcess()
    with pytest.raises(ServerError, match="no start: /no/command did not start"):
        await process.start(request_of("/no/command"))
    await asyncio.wait_for(process.stop(), 30)
    assert process.pid == 0
