"""The janitor ends Ray's processes of a killed owner and no others."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from search.cluster import janitor
from search.cluster.folders import HOST_PREFIX, create_owned_folder, remove_stale_folders
from serving.identity import is_alive

OPEN_FILE = """
import sys, time
file = open(sys.argv[1], "w")
print("up", flush=True)
time.sleep(600)
"""


def start_user(path: Path, name: str) -> subprocess.Popen[str]:
    """Start a process with this name in its command that keeps a file open."""
    command = [sys.executable, "-P", "-c", OPEN_FILE, str(path), name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    return process


def start_janitor(folder: Path, grace_s: float = 0.0) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", janitor.__file__, str(folder), "it was killed", f"{grace_s}"]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll a condition; fail after a minute."""
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def owner_is_alive(folder: Path) -> bool:
    """Return whether the folder's owner is alive, and has been written completely."""
    try:
        return is_alive((folder / janitor.OWNER).read_text())
    except ValueError:
        return False


def test_janitor_ends_ray_processes_of_a_killed_owner(tmp_path: Path) -> None:
    folder = tmp_path / "servetune.ray-1"
    folder.mkdir()
    agent = start_user(folder / "log", "ray::Agent")
    bystander = start_user(folder / "other", "tail")
    try:
        _, errors = start_janitor(folder).communicate(timeout=60)
        assert errors == "it was killed\n"
        assert agent.wait(timeout=60) == -9
        wait_until(lambda: not folder.exists())
        assert bystander.poll() is None
    finally:
        for process in (agent, bystander):
            process.kill()
            process.communicate()


def test_janitor_keeps_its_folder_from_removal_as_stale() -> None:
    """A resumed run does not remove a folder that the janitor of the run before still uses."""
    folder = create_owned_folder(HOST_PREFIX)
    agent = start_user(folder / "log", "ray::Agent")
    try:
        (folder / janitor.OWNER).write_text("1 1")
        process = start_janitor(folder, grace_s=600.0)
        assert process.stdin is not None
        process.stdin.close()  # As if the owner were killed.
        wait_until(lambda: owner_is_alive(folder))
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


def test_janitor_prints_nothing_if_the_owner_ends_gracefully(tmp_path: Path) -> None:
    folder = tmp_path / "servetune.ray-2"
    folder.mkdir()
    assert start_janitor(folder).communicate("done", timeout=60)[1] == ""
    assert not folder.exists()
