"""A process is told from a later one of its pid, whatever the clock does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import psutil
import pytest

from search.cluster.folders import HOST_PREFIX, create_owned_folder, remove_stale_folders
from serving.identity import identity, is_alive


def test_a_process_is_alive_until_it_ends() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    noted = identity(process.pid)
    assert is_alive(noted)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(noted)  # As a zombie.
    process.communicate()
    assert not is_alive(noted)
    with pytest.raises(OSError, match="No such file"):
        identity(process.pid)


def test_a_later_process_of_the_same_pid_is_another() -> None:
    pid, started = identity(os.getpid()).split()
    assert is_alive(f"{pid} {started}")
    assert not is_alive(f"{pid} {int(started) - 1}")


def test_a_step_of_the_clock_leaves_a_living_process_its_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = create_owned_folder(HOST_PREFIX)
    try:
        monkeypatch.setattr(psutil.Process, "create_time", lambda self: time.time() + 1)
        remove_stale_folders()
        assert folder.exists()
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("noted", ["", "1", "a b"])
def test_a_text_that_is_no_identity(noted: str) -> None:
    with pytest.raises(ValueError, match=r"unpack|invalid"):
        is_alive(noted)
