"""TorchServe's workers run at the niceness of servetune, not at that of Ray's workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.real.conftest import servetune
from tests.real.test_service import ServiceProcess, service

__all__ = ["service"]

#: Writes field 19 of /proc/PID/stat, the niceness, when the worker loads the model.
HANDLER = """
import os, time

def handle(data, context):
    if data is None:
        return None
    time.sleep(0.05)
    with open(f"/proc/{{os.getpid()}}/stat") as stat:
        niceness = stat.read().rpartition(")")[2].split()[16]
    with open({path!r}, "a") as log:
        log.write(niceness + " ")
    return [{{"ok": True}} for _ in data]
"""


@pytest.fixture
def niceness(study: Callable[..., Path], tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Yield a study of one trial, and the file to which its workers write their niceness."""
    log = tmp_path / "niceness"
    yield study(HANDLER.format(path=str(log)), search={"trials": 1}), log


def expected() -> set[str]:
    return {str(os.getpriority(os.PRIO_PROCESS, 0))}


@pytest.mark.timeout(300)
def test_trial_serves_at_the_niceness_of_servetune(niceness: tuple[Path, Path]) -> None:
    path, log = niceness
    process = servetune("tune", path, "--plain")
    output = process.communicate(timeout=280)[0]
    assert process.returncode == 0, output
    assert set(log.read_text().split()) == expected()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_job_serves_at_the_niceness_of_servetune(
    service: ServiceProcess, niceness: tuple[Path, Path]
) -> None:
    path, log = niceness
    job_id = service.run_command("submit", path).split()[0]
    assert "finished" in service.run_command("watch", job_id)
    assert set(log.read_text().split()) == expected()
