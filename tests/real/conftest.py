"""Helpers and fixtures of the tests with a real TorchServe and a real Ray."""

from __future__ import annotations

import asyncio
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
from serving.metrics import ServerCounters
from serving.server import TorchServe
from serving.site import Site
from tests.archives import ECHO, make_archive

ROOT = Path(__file__).parents[2]
#: Parts of the command lines of a server, its workers and its supervisor.
OURS = ("org.pytorch.serve.ModelServer", "model_service_worker", "supervisor.py")
#: A light model that takes 100 ms per batch of any size, so that batching raises its capacity.
BATCHED = """
import time

def handle(data, context):
    if data is None:
        return None
    time.sleep(0.1)
    return [{"ok": True} for _ in data]
"""


def processes(*marks: str) -> list[int]:
    """Return the live processes whose command line contains one of these texts."""
    pids = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if any(mark in line for mark in marks) and process.info["status"] != "zombie":
            pids.append(process.pid)
    return pids


def folders() -> set[Path]:
    """Return the temporary folders of all servers, clusters and hosts."""
    return {
        path for prefix in ("servetune-", "servetune.") for path in Path("/tmp").glob(f"{prefix}*")
    }


def wait_for(condition: Callable[[], Any], seconds: float, description: str) -> Any:
    """Return the first true value of `condition`; fail if there is none within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.1)
    pytest.fail(f"not within {seconds} s: {description}")


async def counted(server: TorchServe, answered: int, batches: int) -> ServerCounters:
    """Return the counters once they have reached these values; TorchServe counts after it answers.

    Args:
        batches: one more for each worker, since TorchServe counts the loading of the model.
    """
    for _ in range(600):
        counters = await server.counters()
        if counters and counters.answered >= answered and counters.batches >= batches:
            return counters
        await asyncio.sleep(0.1)
    pytest.fail(f"TorchServe has not counted {answered} answers in {batches} batches")


@pytest.fixture(autouse=True)
def nothing_stays_behind() -> Iterator[None]:
    """Fail if a test leaves a process or a folder."""
    before = folders()
    yield
    wait_for(lambda: not processes(*OURS), 30, "all processes have ended")
    assert folders() <= before


@pytest.fixture
def site(tmp_path: Path) -> Callable[..., Site]:
    """Return a function that makes a site from the source of a handler."""

    def make(source: str = ECHO, files: dict[str, str] | None = None, **more: Any) -> Site:
        archive = Archive.read(make_archive(tmp_path, source, **(files or {})))
        return Site(archive, find_installation(), **more)

    return make


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that writes the specification of a small study of a light model.

    It has no confirmation unless it is asked for, and leaves the user's cache folder alone.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

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
                "window_s": 1,
                "window_limit_s": 3,
                "warmup_limit_s": 3,
                "search_limit_s": 6,
                "width": 0.2,
                "max_rate_rps": 400,
            },
            # All trials are run, however unlikely an improvement is.
            "search": {"trials": 4, "min_improvement_probability": 0},
            "confirm": {"rounds": 0},
            "output": {"folder": str(tmp_path / "runs")},
        }
        for name, section in sections.items():
            data[name] = {**data.get(name, {}), **section}  # type: ignore[dict-item]
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(data))
        return path

    return write


def servetune(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start the command `servetune` in a new session."""
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
    """End the commands of a failed test, so that they do not disturb other tests."""
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
    """Send a signal, wait for the end and return the output."""
    process.send_signal(number)
    return process.communicate(timeout=seconds)[0]
