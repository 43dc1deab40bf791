"""A sweep with a real TorchServe and a real Ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.real.conftest import end, servetune, wait_for


def sweep_of(study: Callable[..., Path], **sections: object) -> Path:
    return study(
        space={"workers": 1, "batch_size": [2, 8]},
        sweep={
            "loads": [
                {"kind": "burst", "requests": 16},
                {"kind": "serial", "requests": 4},
                {"kind": "interval", "interval_ms": 100, "duration_s": 2},
                {"kind": "closed", "users": 16, "duration_s": 2},
            ],
            "repeats": 2,
        },
        **sections,
    )


@pytest.mark.slow
def test_sweep_is_resumed_and_reported(study: Callable[..., Path]) -> None:
    path = sweep_of(study)
    process = servetune("sweep", path, "--plain")
    wait_for(
        lambda: list((path.parent / "runs").glob("*/trials.jsonl")), 120, "trials.jsonl exists"
    )
    wait_for(
        lambda: next((path.parent / "runs").glob("*/trials.jsonl")).read_text(),
        60,
        "a trial was recorded",
    )
    output = end(process)
    assert process.returncode == 130, output
    (folder,) = (path.parent / "runs").iterdir()
    process = servetune("resume", folder, "--plain")
    output = process.communicate(timeout=250)[0]
    assert process.returncode == 0, output
    assert "all 4 trials were run" in output

    lines = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    assert sorted(line["config"]["batch_size"] for line in lines) == [2, 2, 8, 8]
    bursts = {line["config"]["batch_size"]: line["loads"][0]["completion_s"] for line in lines}
    # Each batch takes 100 ms: 8 of them against 2.
    assert 0.8 <= bursts[2] < 60 and 0.2 <= bursts[8] < 60
    fills = {line["config"]["batch_size"]: line["loads"][0]["mean_batch_fill"] for line in lines}
    assert all(fill is None or 1 <= fill <= size for size, fill in fills.items())
    serial = [line["loads"][1] for line in lines]
    assert all(load["answered"] == 4 and load["completion_s"] >= 0.4 for load in serial)
    paced = [line["loads"][2] for line in lines]
    assert all(load["scheduled"] == load["sent"] == 20 for load in paced)
    assert lines[0]["server"]["processes"], "how the workers run is part of the record"
    table = pd.read_csv(folder / "trials.csv")
    assert len(table) == 16 and set(table["kind"]) == {"burst", "serial", "interval", "closed"}
    text = (folder / "report.md").read_text()
    assert "## burst" in text and "| 16 requests at once | 2 |" in text
