"""Complete runs with a real TorchServe, a real Ray and a light model."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import aiohttp
import pandas as pd
import pytest

from search.cli.main import run_command
from tests.real.conftest import OURS, end, folders, processes, servetune, wait_for
from tests.simulated import SimulatedFleet

WriteStudy = Callable[..., Path]
#: Ray's processes, which may take longer to end than servetune's.
RAY = ("servetune.ray-",)


def run_folder(study: Path) -> Path:
    (folder,) = (study.parent / "runs").iterdir()
    return folder


def trials(folder: Path) -> list[dict[str, Any]]:
    path = folder / "trials.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def report(folder: Path) -> dict[str, Any]:
    process = servetune("report", folder, "--json")
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    summary: dict[str, Any] = json.loads(output)
    return summary


def test_tune_writes_report_and_files_that_serve(study: WriteStudy, tmp_path: Path) -> None:
    path = study()
    process = servetune("tune", path, "--plain")
    output = process.communicate(timeout=280)[0]
    assert process.returncode == 0, output
    folder = run_folder(path)
    records = trials(folder)
    assert [t["number"] for t in records] == [0, 1, 2, 3]
    assert records[0]["origin"] == "default" and records[0]["config"] == {}
    assert records[0]["rate"]["capacity_rps"] > 0
    best_rps = max(t["rate"]["sustained_rps"] or 0 for t in records)
    assert best_rps > 0
    for t in records:
        rates = (t["rate"]["sustained_rps"], t["rate"]["capacity_rps"])
        assert max(rate or 0 for rate in rates) <= highest_rps(t)
    summary = report(folder)
    assert summary["best"]["rate"]["sustained_rps"] == best_rps
    best = summary["best"]["number"]
    assert summary["ended"] == "all 4 trials were run"
    assert f"trial {best}" in output
    for t in records:
        names = {p.name for p in (folder / "trials" / str(t["number"])).iterdir()}
        assert names == {"config.properties", "environment", "torchserve.log", "measurements.json"}
    table = pd.read_csv(folder / "trials.csv")
    assert list(table["number"]) == [0, 1, 2, 3]
    assert (folder / "report.md").read_text().startswith("# echo.mar: small-")
    assert list((folder / "tune").glob("*/events.out.tfevents.*"))

    exported = folder / "best"
    text = "".join(file.read_text() for file in exported.iterdir())
    assert str(tmp_path) not in text and "UNCONFIRMED" in text.upper()
    serve_and_ask(exported, tmp_path)

    packed = servetune("export", folder, "--format", "model-config")
    assert packed.wait(60) == 0
    files = folder / "best-model-config"
    verified = servetune("verify", files, "--against", folder)
    verification, _ = verified.communicate(timeout=180)
    assert verification.splitlines()[-1] == "PASS", verification
    assert "claimed rate" in verification and not (files / "key_file.json").exists()

    measured = servetune("measure", path, "--config", exported / "config.properties", "--json")
    answer, _ = measured.communicate(timeout=120)
    assert measured.returncode == 0, answer
    replaced = next(line for line in answer.splitlines() if "replaces in its own server" in line)
    assert "inference_address=http://0.0.0.0:8080" in replaced
    result = json.loads(answer.splitlines()[-1])
    assert result["server"]["batch_capacity"] == records[best]["server"]["batch_capacity"]
    assert 0 < result["rate"]["sustained_rps"] <= highest_rps(result)
    assert 0 < result["rate"]["capacity_rps"] <= highest_rps(result)


def highest_rps(trial: dict[str, Any]) -> float:
    """Return the highest rate that a trial can report: a batch takes 100 ms, the width is 20 %."""
    return 1.25 * float(trial["server"]["batch_capacity"]) / 0.1


def serve_and_ask(exported: Path, model_store: Path) -> None:
    """Start the exported files by TorchServe's own command; ask with its token."""
    bin_folder = Path(sys.executable).parent
    environment = {
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "HOME": str(model_store),
        "MODEL_STORE": str(model_store),
        "TEMP": str(model_store),
    }
    server = subprocess.Popen(
        [exported / "start.sh"],
        env=environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        key_file = exported / "key_file.json"
        wait_for(
            lambda: key_file.exists() and key_file.read_text(),
            60,
            "TorchServe has written its tokens",
        )
        token = json.loads(key_file.read_text())["inference"]["key"]

        def status(token: str) -> int | None:
            import asyncio

            async def ask() -> int:
                async with (
                    aiohttp.ClientSession() as session,
                    session.post(
                        "http://127.0.0.1:8080/predictions/echo",
                        json={},
                        headers={"Authorization": f"Bearer {token}"},
                    ) as answer,
                ):
                    return answer.status

            try:
                return asyncio.run(ask())
            except aiohttp.ClientError:
                return None

        wait_for(lambda: status(token) == 200, 60, "the exported configuration serves")
        assert status("wrong") == 400
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        key_file.unlink(missing_ok=True)


def until_trial(folder: Callable[[], Path], number: int) -> Path:
    def measuring() -> Path | None:
        runs = folder().parent if folder().exists() else None
        path = folder() / "trials" / str(number) / "torchserve.log"
        ready = path.exists() and "Torch worker started" in path.read_text()
        return folder() if runs and ready else None

    run: Path = wait_for(measuring, 120, f"trial {number} is running")
    return run


def start(study: WriteStudy, number: int, **sections: Any) -> tuple[Any, Path, Path]:
    """Start a run, and wait until its trial `number` is running."""
    path = study(**sections)
    process = servetune("tune", path, "--plain")
    wait_for(lambda: list((path.parent / "runs").glob("*")), 60, "the run's folder exists")
    folder = until_trial(lambda: run_folder(path), number)
    return process, path, folder


def test_resume_continues_run_ended_by_ctrl_c(study: WriteStudy) -> None:
    before = folders()
    process, _, folder = start(study, 1, search={"trials": 3})
    output = end(process, signal.SIGINT)
    assert process.returncode == 130, output
    assert "The run ended because it was interrupted" in output
    assert "Traceback" not in output
    wait_for(lambda: not processes(*OURS, *RAY) and folders() <= before, 30, "nothing is left")
    kept = trials(folder)
    assert kept[0]["number"] == 0 and len(kept) < 3

    again = servetune("resume", folder, "--plain")
    output = again.communicate(timeout=250)[0]
    assert again.returncode == 0, output
    numbers = [t["number"] for t in trials(folder)]
    assert len(numbers) == len(set(numbers)) == 3
    assert trials(folder)[: len(kept)] == kept
    assert [t["origin"] for t in trials(folder)].count("default") == 1


def kill(process: Any) -> None:
    process.kill()
    process.communicate()
    wait_for(lambda: not processes(*OURS), 30, "no server is left")
    wait_for(lambda: not processes(*RAY), 120, "no Ray is left")
    wait_for(lambda: not folders(), 30, "no folder is left")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_resume_loses_nothing_after_sigkill_of_the_driver(study: WriteStudy) -> None:
    process, _, folder = start(
        study, 1, search={"trials": 3}, confirm={"rounds": 2, "finalists": 1}
    )
    kill(process)
    (folder / "trials.jsonl").unlink()
    process = servetune("resume", folder, "--plain")
    until_trial(lambda: folder, 2)
    assert trials(folder)[0]["number"] == 0, "its line was rebuilt from the study"
    kill(process)
    process = servetune("resume", folder, "--plain")
    (first,) = wait_for(lambda: list(folder.glob("confirm/*/0-0")), 120, "it is being confirmed")
    wait_for(lambda: (first / "measurements.json").exists(), 60, "one was measured again")
    wait_for(lambda: len(list(first.parent.iterdir())) > 1, 60, "the next one is running")
    kill(process)
    before = (first / "measurements.json").stat().st_mtime
    process = servetune("resume", folder, "--plain")
    output = process.communicate(timeout=250)[0]
    assert process.returncode == 0, output
    assert len(trials(folder)) == 3 and trials(folder)[0]["number"] == 0
    assert (first / "measurements.json").stat().st_mtime == before, "it was not measured twice"
    assert "Confirmed in 2 rounds: trial" in output
    assert "confirmed\n" in (folder / "best" / "README.md").read_text()
    assert "servetune" not in str(folders()), "no folder is left"


#: As Ray names the processes of a running trial and of the load.
@pytest.mark.slow
@pytest.mark.parametrize("victim", ["ResourceTrainable", "_LoadActor"])
def test_tune_repeats_at_most_one_trial_after_sigkill_of_a_ray_worker(
    study: WriteStudy, victim: str
) -> None:
    process, _, folder = start(study, 1)
    # A second load generator process may have been started if the first was late.
    pid, *_ = processes(f"ray::{victim}")
    os.kill(pid, signal.SIGKILL)
    output = process.communicate(timeout=280)[0]
    assert process.returncode == 0, output
    records = trials(folder)
    lost = [
        t for t in records if t["failure"] in ("trial process lost", "load generator process lost")
    ]
    assert len(lost) == (1 if victim == "ResourceTrainable" else 0)
    assert all(t["host_fault"] and t["state"] == "FAILED" for t in lost)
    tried = [t["config"] for t in records if t["number"] > 0]
    assert not lost or tried.count(lost[0]["config"]) == 2, "it was tried once more"
    assert "(raylet)" not in output, "only servetune's own words name the cause"


RAISES = "raise ValueError('no weights here')\n"


def test_tune_stops_at_once_if_the_default_cannot_serve(study: WriteStudy) -> None:
    path = study(source=RAISES)
    process = servetune("tune", path, "--plain")
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 1, output
    assert "the default configuration cannot serve: model does not load" in output
    assert "no weights here" in output
    assert not re.search(r'File ".*/(search|loadgen|serving)/', output), (
        "only the handler's traceback"
    )
    assert [t["number"] for t in trials(run_folder(path))] == [0]


#: A setting of which one value breaks the model.
FRAGILE = """
import os, time
if os.environ.get("BREAK") == "1":
    raise ValueError("broken on purpose")

def handle(data, context):
    if data is None:
        return None
    time.sleep(0.1)
    return [{"ok": True} for _ in data]
"""


@pytest.mark.slow
def test_tune_records_a_failed_configuration_and_continues(study: WriteStudy) -> None:
    path = study(
        source=FRAGILE,
        space={"batch_size": 4, "environment": {"BREAK": ["1", "0"]}},
        serving={"baseline": "config.properties"},
        search={"trials": 9},
    )
    process = servetune("tune", path, "--plain")
    output = process.communicate(timeout=280)[0]
    assert process.returncode == 0, output
    records = trials(run_folder(path))
    assert [t["origin"] for t in records[:2]] == ["default", "baseline"]
    broken = [t for t in records if t["config"].get("environment") == {"BREAK": "1"}]
    assert len(broken) == 1, "it was not proposed again"
    assert broken[0]["state"] == "FAILED"
    assert broken[0]["cause"].startswith("model does not load: the handler raised")
    assert "broken on purpose" in broken[0]["cause"]
    assert "no configuration was found that had not been tried" in output
    summary = report(run_folder(path))
    assert summary["reference"]["origin"] == "baseline"
    assert summary["best"]["number"] != broken[0]["number"]


@pytest.fixture
def measured_url(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, dict[str, Any]]]:
    """Measures a URL; returns the exit status and the result."""

    def measure(url: str) -> tuple[int, dict[str, Any]]:
        (tmp_path / "requests.jsonl").write_text('{"body": {}, "expect": {"contains": "ok"}}\n')
        requests = str(tmp_path / "requests.jsonl")
        arguments = ["measure", "--url", url, "--requests", requests, "--users", "128", "--json"]
        status = run_command(arguments)
        captured = capsys.readouterr()
        assert "warm-up" in captured.err
        data: dict[str, Any] = json.loads(captured.out)
        return status, data

    return measure


MeasuredUrl = Callable[[str], tuple[int, dict[str, Any]]]


@pytest.mark.slow
def test_measure_url_finds_the_rate_without_ray(measured_url: MeasuredUrl) -> None:
    from tests.stub import stub

    # Latencies of half a second allow for a sender that its host delays by milliseconds.
    with stub(workers=1, batch=64, service_s=0.4) as url:
        status, data = measured_url(url)
    lower, upper = data["lower_rps"], data["upper_rps"]
    assert lower == data["sustained_rps"] and status == (0 if lower else 1)
    assert (lower or 0) <= 1.03 * 160
    assert lower is None or upper is None or lower <= upper
    assert 0 < data["succeeded"] <= data["sent"] <= data["scheduled"]


def test_measure_url_reports_the_rate_of_the_search(
    measured_url: MeasuredUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = SimulatedFleet(service_s=0.4, servers=64)
    # Nothing is measured on this host: another servetune may run.
    monkeypatch.setattr("search.measure.endpoint.exclusive_host", nullcontext)
    monkeypatch.setattr("search.measure.endpoint.Fleet", lambda *_, **__: fleet)
    status, data = measured_url("http://simulated/")
    assert status == 0
    assert data["lower_rps"] == data["sustained_rps"] == pytest.approx(160, rel=0.07)
    assert data["upper_rps"] is None or data["lower_rps"] <= data["upper_rps"]
    assert data["estimate"]["rps"] == pytest.approx(160, rel=0.02)


def test_measure_url_does_not_import_ray() -> None:
    code = "import sys, search.cli.main, search.measure.endpoint; print('ray' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout == "False\n"


def test_measure_url_reports_refused_connection(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "requests.jsonl").write_text('{"body": {}}\n')
    url = "http://127.0.0.1:9/predictions/x"
    requests = str(tmp_path / "requests.jsonl")
    assert run_command(["measure", "--url", url, "--requests", requests]) == 1
    assert "connection refused" in capsys.readouterr().err
