"""Faults during a run: each has a named cause, and the run continues or ends with a reason."""

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


def counting_handler(statement: str) -> str:
    """Return the source of a handler that runs a statement with the `count` of its requests."""
    return f"""
import os, time
count = 0

def handle(data, context):
    global count
    if data is None:
        return None
    count += len(data)
    {statement}
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
FAILS = counting_handler('assert count % 7, "every seventh"')
HANGS = counting_handler("time.sleep(1000 if count > 20 else 0)")
SLOWER = counting_handler("time.sleep(0.01 * 1.004**count)")
DIES = counting_handler("count > 20 and os._exit(1)")
#: The first, third, … attempt to load it fails.
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


def measure_defaults(path: Path) -> tuple[int, dict[str, Any] | None, str]:
    """Measure a study's model with TorchServe's defaults; return exit status, result and output."""
    config = path.with_name("config.properties")
    config.write_text("")
    process = servetune("measure", path, "--config", config, "--json")
    output = process.communicate(timeout=200)[0]
    lines = [line for line in output.splitlines() if line.startswith("{")]
    return process.returncode, json.loads(lines[-1]) if lines else None, output


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        (LEAKS, "memory budget: the server used|out of memory: "),
        (FAILS, "status 50[03]"),
        (HANGS, "timeout"),
        (DIES, "worker died: worker [0-9]+ exited during the measurement"),
    ],
    ids=["leaks", "fails", "hangs", "dies"],
)
def test_measure_reports_cause_of_faulty_handler(
    study: WriteStudy, source: str, cause: str
) -> None:
    path = study(source, load={"timeout_s": 3}, serving={"limits": {"memory_mb": 1800}})
    status, result, output = measure_defaults(path)
    assert status == 1 and result and not result["rate"]["sustained_rps"], output
    assert re.search(cause, output), output
    assert "Traceback" not in output.replace("MODEL_LOG - Traceback", "")


def test_measure_does_not_report_initial_rate_of_handler_that_slows_down(study: WriteStudy) -> None:
    _status, result, output = measure_defaults(study(SLOWER))
    assert result, output
    assert result["rate"]["sustained_rps"] < 60, output  # It started at about 100 rps.


def test_measure_serves_or_reports_model_that_loads_only_sometimes(study: WriteStudy) -> None:
    status, _result, output = measure_defaults(study(SOMETIMES))
    assert status == 0 or "model does not load" in output, output


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a file system cannot be mounted here: it needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def start_tuning(path: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a search, wait for its first result, and return its process and folder."""
    process = servetune("tune", path, "--plain")
    runs = Path(yaml.safe_load(path.read_text())["output"]["folder"])
    lines = wait_for(
        lambda: [p for p in runs.glob("*/trials.jsonl") if p.read_text().count("\n")],
        *(200, "a trial was recorded"),
    )
    return process, lines[0].parent


def count_trials(folder: Path) -> int:
    return len((folder / "trials.jsonl").read_text().splitlines())


def test_tune_ends_with_a_message_if_the_disk_is_full(study: WriteStudy, small_disk: Path) -> None:
    process, folder = start_tuning(study(output={"folder": str(small_disk)}))
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    output = process.communicate(timeout=200)[0]
    assert process.returncode == 1 and "Traceback" not in output, output
    assert "cannot be written" in output and "servetune resume" in output
    kept = count_trials(folder)
    assert kept >= 1
    with filler.open("ab") as file:
        file.truncate(5 << 20)
    again = servetune("resume", folder, "--plain")
    output = again.communicate(timeout=300)[0]
    assert again.returncode == 1 and "Traceback" not in output, output
    assert "cannot be written" in output, "report.html is larger than what is left"
    assert count_trials(folder) == 4
    filler.unlink()
    again = servetune("resume", folder, "--plain")
    output = again.communicate(timeout=300)[0]
    assert again.returncode == 0 and count_trials(folder) == 4, output


def test_tune_waits_for_a_locked_study(study: WriteStudy) -> None:
    process, folder = start_tuning(study())
    other = sqlite3.connect(folder / "study.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        process.wait(timeout=40)
    except subprocess.TimeoutExpired:
        other.execute("COMMIT")
    other.close()
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0 and count_trials(folder) == 4, output


def test_resume_restores_missing_study_from_trials_jsonl(study: WriteStudy) -> None:
    process, folder = start_tuning(study())
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=100)
    kept = (folder / "trials.jsonl").read_text()
    (folder / "study.db").unlink()
    again = servetune("resume", folder, "--plain")
    output = again.communicate(timeout=300)[0]
    assert again.returncode == 0, output
    assert (folder / "trials.jsonl").read_text().startswith(kept) and count_trials(folder) == 4


def test_resume_continues_run_whose_raylet_was_killed(study: WriteStudy) -> None:
    before = folders()
    process, folder = start_tuning(study())
    (raylet,) = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "raylet/raylet" in " ".join(child.cmdline())
    ]
    os.kill(raylet.pid, signal.SIGKILL)
    output = process.communicate(timeout=200)[0]
    assert process.returncode != 0, output
    assert "its Ray was killed; earlier results are kept" in output
    assert "Traceback" not in output and "(raylet)" not in output
    wait_for(lambda: folders() <= before, 60, "no folder is left")
    kept = count_trials(folder)
    again = servetune("resume", folder, "--plain")
    output = again.communicate(timeout=300)[0]
    assert again.returncode == 0 and count_trials(folder) >= max(kept, 4), output
