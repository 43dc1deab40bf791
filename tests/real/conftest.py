"""What the tests with a real TorchServe and a real Ray share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from serving.archive import Archive
from serving.installation import find_installation
from serving.site import Site
from tests.archives import ECHO, make_archive

ROOT = Path(__file__).parents[2]
OURS = ("org.pytorch.serve.ModelServer", "model_service_worker", "supervisor.py")
#: 100 ms a batch, whatever its size: a light model with a capacity that batching raises.
BATCHED = """
import time

def handle(data, context):
    if data is None:
        return None
    time.sleep(0.1)
    return [{"ok": True} for _ in data]
"""


def processes(*marks: str) -> list[int]:
    """The live processes whose command line has one of these marks."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if any(mark in line for mark in marks) and process.info["status"] != "zombie":
            found.append(process.pid)
    return found


def folders() -> set[Path]:
    return {
        path for prefix in ("servetune-", "servetune.") for path in Path("/tmp").glob(f"{prefix}*")
    }


def wait_for(what: Callable[[], Any], seconds: float, why: str) -> Any:
    """What `what` returns once it is true; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.1)
    pytest.fail(f"not within {seconds} s: {why}")


@pytest.fixture(autouse=True)
def nothing_stays_behind() -> Iterator[None]:
    """No test here may leave a process or a folder."""
    before = folders()
    yield
    wait_for(lambda: not processes(*OURS), 30, "processes are gone")
    assert folders() <= before


@pytest.fixture
def site(tmp_path: Path) -> Callable[..., Site]:
    """Makes a site that serves a handler's source."""

    def make(source: str = ECHO, files: dict[str, str] | None = None, **more: Any) -> Site:
        archive = Archive.read(make_archive(tmp_path, source, **(files or {})))
        return Site(archive, find_installation(), **more)

    return make


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Path]:
    """Writes a small study of a light model; returns its file."""

    def write(source: str = BATCHED, **sections: Any) -> Path:
        make_archive(tmp_path, source)
        (tmp_path / "config.properties").write_text("number_of_netty_threads=2\n")
        (tmp_path / "requests.jsonl").write_text('{"body": {"a": 1}}\n')
        data = {
            "name": "small",
            "model": {"archive": "echo.mar", "requests": "requests.jsonl"},
            "space": {
                "workers": 1,
                "batch_size": {"low": 1, "high": 8},
                "max_batch_delay_ms": 5,
                "netty_threads": 2,
                "netty_client_threads": 2,
                "mkl_threads": 1,
            },
            "goal": {
                "window_s": 2,
                "window_limit_s": 6,
                "warmup_limit_s": 5,
                "search_limit_s": 15,
                "windows": 1,
                "width": 0.2,
                "max_rate_rps": 400,
            },
            "search": {"trials": 4},
            "output": {"folder": str(tmp_path / "runs")},
        }
        for name, section in sections.items():
            data[name] = {**data.get(name, {}), **section}  # type: ignore[dict-item]
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(data))
        return path

    return write


def servetune(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start the command in a process group of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "servetune", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "COLUMNS": "200"},
        **options,
    )
    _started.append(process)
    return process


_started: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def no_command_outlives_its_test(nothing_stays_behind: None) -> Iterator[None]:
    """A test that failed must not leave its command to disturb the others."""
    yield
    while _started:
        process = _started.pop()
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()


def end(process: subprocess.Popen[str], number: int = signal.SIGINT, seconds: float = 60) -> str:
    """Send a signal and wait; everything that it printed."""
    process.send_signal(number)
    return process.communicate(timeout=seconds)[0]
