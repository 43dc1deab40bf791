"""Trials run servetune's own code, at its niceness: not at that of Ray's workers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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
def test_trial_serves_at_the_niceness_of_servetune_in_any_folder(
    niceness: tuple[Path, Path], tmp_path: Path
) -> None:
    """The folder has packages of the same names as servetune's."""
    path, log = niceness
    folder = tmp_path / "deployment"
    for name in ("serving", "search", "loadgen"):
        (folder / name).mkdir(parents=True)
    (folder / "serving" / "config.py").write_text("raise RuntimeError('the wrong package')\n")
    (folder / "search" / "__init__.py").write_text("raise RuntimeError('the wrong package')\n")
    ended = subprocess.run(
        [Path(sys.executable).with_name("servetune"), "tune", path, "--plain"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Nothing but TorchServe's default (trial 0) was measured." in ended.stdout
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
