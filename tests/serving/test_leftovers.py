from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.cgroup import CGROUPS_FILE
from serving.identity import process_identity
from serving.leftovers import HOME_PREFIX, remove_leftovers


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a server, in a folder for temporary files that only this test uses."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = tmp_path / f"{HOME_PREFIX}test"
    path.mkdir()
    return path


@pytest.fixture
def server() -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0) as process:
        yield process
        process.kill()


def dead_process() -> str:
    """Return the identity of a process that does not exist."""
    pid, start_ticks = process_identity(os.getpid()).split()
    return f"{pid} {int(start_ticks) - 1}"


def test_remove_leftovers_kills_server_of_dead_supervisor(
    home: Path, server: subprocess.Popen[bytes]
) -> None:
    (home / "supervisor.pid").write_text(dead_process())
    (home / "server.pid").write_text(process_identity(server.pid))
    remove_leftovers()
    assert server.wait(10) == -9
    assert not home.exists()


def test_remove_leftovers_keeps_server_of_living_supervisor(
    home: Path, server: subprocess.Popen[bytes]
) -> None:
    (home / "supervisor.pid").write_text(process_identity(os.getpid()))
    (home / "server.pid").write_text(process_identity(server.pid))
    remove_leftovers()
    assert home.exists() and server.poll() is None


def test_remove_leftovers_removes_folder_without_supervisor_after_a_minute(home: Path) -> None:
    remove_leftovers()
    assert home.exists(), "its server may be starting"
    os.utime(home, (0, 0))
    remove_leftovers()
    assert not home.exists()


def test_remove_leftovers_removes_cgroups_of_dead_supervisor(home: Path, tmp_path: Path) -> None:
    cgroup = tmp_path / "cgroup" / home.name
    cgroup.mkdir(parents=True)
    (home / CGROUPS_FILE).write_text(str(cgroup))
    (home / "supervisor.pid").write_text(dead_process())
    remove_leftovers()
    assert not cgroup.exists() and not home.exists()
