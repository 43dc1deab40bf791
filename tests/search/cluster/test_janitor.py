"""What a killed owner leaves is ended and removed; what is not Ray's is left alone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from search.cluster import janitor as keeper
from search.cluster.folders import HOST_PREFIX, create_owned_folder, remove_stale_folders
from serving.identity import is_alive

HOLDS = "import sys, time; held = open(sys.argv[1], 'w'); print('up', flush=True); time.sleep(600)"


def holder(path: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDS, str(path), name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    return process


def kept(folder: Path, patience_s: float = 0.0) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", keeper.__file__, str(folder), "it was killed", f"{patience_s}"]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds; only a hang takes a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_kept(folder: Path) -> bool:
    """Whether the folder's owner is alive: the keeper, once it has written its whole name."""
    try:
        return is_alive((folder / keeper.OWNER).read_text())
    except ValueError:
        return False


def test_an_owner_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "servetune.ray-1"
    folder.mkdir()
    agent, bystander = holder(folder / "log", "ray::Agent"), holder(folder / "seen", "tail")
    try:
        _, said = kept(folder).communicate(timeout=60)
        assert said == "it was killed\n"
        assert agent.wait(timeout=60) == -9
        until(lambda: not folder.exists())
        assert bystander.poll() is None
    finally:
        for process in (agent, bystander):
            process.kill()
            process.communicate()


def test_what_is_kept_is_not_swept() -> None:
    """A run that is resumed at once takes nothing from the keeper of the one before."""
    folder = create_owned_folder(HOST_PREFIX)
    agent = holder(folder / "log", "ray::Agent")
    try:
        (folder / keeper.OWNER).write_text("1 1")
        process = kept(folder, patience_s=600.0)
        assert process.stdin is not None
        process.stdin.close()  # The owner's end.
        until(lambda: is_kept(folder))
        remove_stale_folders()
        assert folder.exists()
        agent.kill()
        agent.wait()
        assert process.stderr is not None and process.stderr.read() == "it was killed\n"
        assert not folder.exists()
    finally:
        agent.kill()
        agent.communicate()
        process.wait()


def test_an_owner_that_ends_in_order_is_not_spoken_of(tmp_path: Path) -> None:
    folder = tmp_path / "servetune.ray-2"
    folder.mkdir()
    assert kept(folder).communicate("done", timeout=60)[1] == ""
    assert not folder.exists()
