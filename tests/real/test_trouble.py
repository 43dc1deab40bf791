"""What goes wrong in a run, made to happen: the cause by name, the run going on or told why not."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.real.conftest import folders, servetune, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
WriteStudy = Callable[..., Path]


def counting(then: str) -> str:
    """A handler that does this with the `count` of requests that it has had."""
    return f"""
import os, time
count = 0

def handle(data, context):
    global count
    if data is None:
        return None
    count += len(data)
    {then}
    return [{{"ok": True}} for _ in data]
"""


LEAKS = """
kept = []

def handle(data, context):
    if data is None:
        return None
    kept.append(bytearray(40 << 20))
    return [{"ok": True} for _ in data]
"""
FAILS = counting('assert count % 7, "every seventh"')
HANGS = counting("time.sleep(1000 if count > 20 else 0)")
SLOWER = counting("time.sleep(0.01 * 1.004**count)")
DIES = counting("count > 20 and os._exit(1)")
#: Every second attempt to load it fails.
SOMETIMES = """
import os, pathlib, time
mark = pathlib.Path(os.environ["TMPDIR"]) / "tried"
tried = len(mark.read_text()) if mark.exists() else 0
mark.write_text("x" * (tried + 1))
if tried % 2 == 0:
    raise OSError("the weights are away for a moment")

def handle(data, context):
    if data is None:
        return None
    time.sleep(0.05)
    return [{"ok": True} for _ in data]
"""


def measured(path: Path) -> tuple[int, dict[str, Any] | None, str]:
    """Measure a study's model under TorchServe's defaults: exit status, result, what was said."""
    config = path.with_name("config.properties")
    config.write_text("")
    process = servetune("measure", path, "--config", config, "--json")
    said = process.communicate(timeout=200)[0]
    lines = [line for line in said.splitlines() if line.startswith("{")]
    return process.returncode, json.loads(lines[-1]) if lines else None, said


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (LEAKS, "memory budget: the server used"),
        (FAILS, "status 50[03]"),
        (HANGS, "timeout"),
        (DIES, "worker died: worker [0-9]+ exited during the measurement"),
    ],
    ids=["leaks", "fails", "hangs", "dies"],
)
def test_a_handler_that_goes_wrong_is_named(study: WriteStudy, source: str, told: str) -> None:
    path = study(source, load={"timeout_s": 3}, serving={"memory_limit_mb": 1800})
    status, result, said = measured(path)
    assert status == 1 and result and not result["sustained_rps"], said
    assert re.search(told, said), said
    assert "Traceback" not in said.replace("MODEL_LOG - Traceback", "")


def test_a_handler_that_slows_down_is_not_certified_at_its_old_rate(study: WriteStudy) -> None:
    _status, result, said = measured(study(SLOWER))
    assert result, said
    assert result["sustained_rps"] < 60, said  # It began with a hundred.


def test_a_model_that_loads_only_sometimes_serves_or_is_named(study: WriteStudy) -> None:
    status, _result, said = measured(study(SOMETIMES))
    assert status == 0 or "model does not load" in said, said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a file system cannot be mounted here: it needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def started(path: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a search, and wait for its first trial."""
    process = servetune("tune", path, "--plain")
    runs = Path(yaml.safe_load(path.read_text())["output"]["folder"])
    lines = wait_for(
        lambda: [p for p in runs.glob("*/trials.jsonl") if p.read_text().count("\n")],
        *(200, "a trial was recorded"),
    )
    return process, lines[0].parent


def count(folder: Path) -> int:
    return len((folder / "trials.jsonl").read_text().splitlines())


def test_a_disk_that_fills_up_ends_the_run_in_a_sentence(
    study: WriteStudy, small_disk: Path
) -> None:
    process, folder = started(study(output={"folder": str(small_disk)}))
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    said = process.communicate(timeout=200)[0]
    assert process.returncode == 1 and "Traceback" not in said, said
    assert "cannot be written" in said and "servetune resume" in said
    kept = count(folder)
    assert kept >= 1
    with filler.open("ab") as file:
        file.truncate(5 << 20)
    again = servetune("resume", folder, "--plain")
    said = again.communicate(timeout=300)[0]
    assert again.returncode == 1 and "Traceback" not in said, said
    assert "cannot be written" in said, "report.html is larger than what is left"
    assert count(folder) == 4
    filler.unlink()
    again = servetune("resume", folder, "--plain")
    said = again.communicate(timeout=300)[0]
    assert again.returncode == 0 and count(folder) == 4, said


def test_a_study_that_is_locked_for_a_while_is_waited_for(study: WriteStudy) -> None:
    process, folder = started(study())
    other = sqlite3.connect(folder / "study.db", isolation_level=None)
    other.run_study("BEGIN EXCLUSIVE")
    try:
        process.wait(timeout=40)
    except subprocess.TimeoutExpired:
        other.run_study("COMMIT")
    other.close()
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0 and count(folder) == 4, said


def test_a_study_that_is_gone_is_taken_up_from_the_record(study: WriteStudy) -> None:
    process, folder = started(study())
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=100)
    kept = (folder / "trials.jsonl").read_text()
    (folder / "study.db").unlink()
    again = servetune("resume", folder, "--plain")
    said = again.communicate(timeout=300)[0]
    assert again.returncode == 0, said
    assert (folder / "trials.jsonl").read_text().startswith(kept) and count(folder) == 4


def test_without_its_raylet_a_run_ends_and_goes_on_later(study: WriteStudy) -> None:
    before = folders()
    process, folder = started(study())
    (raylet,) = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "raylet/raylet" in " ".join(child.cmdline())
    ]
    os.kill(raylet.pid, signal.SIGKILL)
    said = process.communicate(timeout=200)[0]
    assert process.returncode != 0, said
    assert "its Ray was killed; earlier results are kept" in said
    assert "Traceback" not in said and "(raylet)" not in said
    wait_for(lambda: folders() <= before, 60, "no folder is left")
    kept = count(folder)
    again = servetune("resume", folder, "--plain")
    said = again.communicate(timeout=300)[0]
    assert again.returncode == 0 and count(folder) >= max(kept, 4), said
