"""Several models in one TorchServe: a background load, and two models tuned under a mix."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import javaproperties
import pytest

from tests.archives import make_archive
from tests.real.conftest import servetune
from tests.real.test_study import report, run_folder, trials

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ENTRY = {
    **{"defaultVersion": True, "minWorkers": 1, "maxWorkers": 1, "batchSize": 2},
    **{"maxBatchDelay": 10, "responseTimeout": 60},
}
#: The time of a batch of any size.
BATCH_S = {"cat": 0.1, "dog": 0.2}
HANDLER = """
import time

def handle(data, context):
    if data is None:
        return None
    time.sleep({seconds})
    return [{{"model": "{name}"}} for _ in data]
"""
BATCHES = {"low": 1, "high": 8}


@pytest.fixture
def models(tmp_path: Path, study: Callable[..., Path]) -> Callable[..., Path]:
    """Return a function that writes a study of the model cat in a server that has dog too."""

    def write(**sections: Any) -> Path:
        for name, seconds in BATCH_S.items():
            source = HANDLER.format(seconds=seconds, name=name)
            make_archive(tmp_path / "store", source, name)
            line = {"body": {"a": 1}, "expect": {"contains": name}}
            (tmp_path / f"{name}.jsonl").write_text(json.dumps(line) + "\n")
        path = study(
            model={"archive": "store/cat.mar", "requests": "cat.jsonl"},
            serving={"baseline": "config.properties"},
            **sections,
        )
        entries = {name: {"1.0": {**ENTRY, "marName": f"{name}.mar"}} for name in BATCH_S}
        (tmp_path / "config.properties").write_text(
            "# ours\nmodel_store=store\nload_models=cat.mar,dog.mar\nnumber_of_netty_threads=2\n"
            f"models={json.dumps(entries)}\n"
        )
        return path

    return write


def tuned(path: Path) -> tuple[Path, list[dict[str, Any]]]:
    process = servetune("tune", path, "--plain")
    output = process.communicate(timeout=500)[0]
    assert process.returncode == 0, output
    folder = run_folder(path)
    return folder, trials(folder)


def test_tune_measures_the_background_before_and_after(models: Callable[..., Path]) -> None:
    load = {"background": [{"model": "dog", "requests": "dog.jsonl", "rate_rps": 4}]}
    folder, records = tuned(models(load=load, search={"trials": 3}))
    expected = {"workers": 1, "batch_size": 2, "max_batch_delay_ms": 10, "response_timeout_s": 60}
    for trial in records:
        assert trial["config"]["models"] == {"dog": expected}
        assert trial["server"]["other_models"] == {"dog": expected}
        (background,) = trial["background"]
        assert (background["model"], background["rate_rps"]) == ("dog", 4)
        assert background["scheduled"] > 0 and background["p99_s"] >= BATCH_S["dog"]
        if trial["rate"]["sustained_rps"]:
            assert background["failed"] == 0
        windows = json.loads(
            (folder / "trials" / str(trial["number"]) / "measurements.json").read_text()
        )["windows"]
        assert all(window["background"]["dog"]["scheduled"] for window in windows)
    assert any(trial["rate"]["sustained_rps"] for trial in records)
    text = (folder / "report.md").read_text()
    assert "4 rps in the background" in text and "| dog | trial" in text


def test_tune_export_and_verify_two_models_under_a_mix(
    models: Callable[..., Path], tmp_path: Path
) -> None:
    path = models(
        load={"mix": {"cat": 3, "dog": 1}, "requests": {"dog": "dog.jsonl"}},
        space={"batch_size": BATCHES, "models": {"dog": {"workers": 1, "batch_size": BATCHES}}},
        search={"trials": 4},
    )
    folder, records = tuned(path)
    assert [trial["origin"] for trial in records[:2]] == ["default", "baseline"]
    default, baseline = records[:2]
    assert default["config"] == {}
    assert baseline["config"]["models"]["dog"]["batch_size"] == 2
    for trial in records[2:]:
        dog = trial["server"]["other_models"]["dog"]
        wanted = trial["config"]["models"]["dog"]
        assert {name: dog[name] for name in wanted} == wanted and dog["workers"] == 1
    best = report(folder)["best"]
    cat, dog = best["mix"]
    assert (cat["model"], dog["model"]) == ("cat", "dog") and cat["failed"] == dog["failed"] == 0
    assert cat["sent"] == pytest.approx(3 * dog["sent"], abs=6)
    assert dog["p50_s"] >= BATCH_S["dog"] and cat["p50_s"] >= BATCH_S["cat"]
    assert "| dog | trial" in (folder / "report.md").read_text()
    for trial in records:
        # A quarter of the requests are for dog, whose batches take twice as long as cat's.
        capacity = [
            settings["workers"] * settings["batch_size"] / BATCH_S[name] / share
            for name, share, settings in (
                ("cat", 0.75, trial["server"]["settings"]),
                ("dog", 0.25, trial["server"]["other_models"]["dog"]),
            )
        ]
        assert (trial["rate"]["sustained_rps"] or 0) <= 1.25 * min(capacity)
    assert best["rate"]["sustained_rps"] > 0
    exported = servetune("export", folder, "--base", tmp_path / "config.properties")
    output, _ = exported.communicate(timeout=60)
    assert exported.returncode == 0, output
    text = (folder / "best" / "config.properties").read_text()
    assert text.startswith("# ours\nmodel_store=store\nload_models=cat.mar,dog.mar\n")
    entries = json.loads(javaproperties.loads(text)["models"])
    chosen = {"cat": best["server"]["settings"], **best["server"]["other_models"]}
    for name, settings in chosen.items():
        assert entries[name]["1.0"]["batchSize"] == settings["batch_size"]
        assert entries[name]["1.0"]["minWorkers"] == settings["workers"]
    verify_against(folder, "best")
    exported = servetune("export", folder, "--format", "kserve")
    output, _ = exported.communicate(timeout=60)
    assert (
        exported.returncode == 2 and "the envelope kserve passes only the first request" in output
    )
    exported = servetune("export", folder, "--format", "kserve", "--trial", 0)
    output, _ = exported.communicate(timeout=60)
    assert exported.returncode == 0, output
    verify_against(folder, "best-kserve")


def verify_against(folder: Path, exported: str) -> None:
    verified = servetune("verify", folder / exported, "--against", folder)
    verification, _ = verified.communicate(timeout=180)
    assert verification.splitlines()[-1] == "PASS", verification
    assert "archive of dog" in verification and "models.dog.batch_size" in verification
