"""Runs that start from what people deploy: each ends with files that serve as measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.archives import make_archive
from tests.real.conftest import BATCHED, servetune

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.mark.parametrize(
    "model_config",
    [
        "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 4\nmaxBatchDelay: 20\nresponseTimeout: 60\n",
        "batchSize: 2\nhandler:\n  device: cpu\n",
    ],
    ids=["all settings", "batch size"],
)
def test_tune_varies_settings_of_an_archive_with_its_own(
    study: Callable[..., Path], model_config: str
) -> None:
    path = study(space={"batch_size": [4, 8]})
    make_archive(path.parent, BATCHED, model_config__yaml=model_config)
    process = servetune("tune", path, "--plain")
    output = process.communicate(timeout=280)[0]
    assert process.returncode == 0, output
    (run,) = (path.parent / "runs").iterdir()
    trials = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]
    assert {trial["state"] for trial in trials} <= {"COMPLETE", "PRUNED"}, output
    assert any(trial["config"].get("batch_size") == 8 for trial in trials)
    in_use = path.parent / "config.properties"
    exported = servetune("export", run, "--trial", "1", "--base", in_use)
    assert exported.wait(60) == 0
    verified = servetune("verify", run / "best", "--against", run)
    verification, _ = verified.communicate(timeout=180)
    assert verification.splitlines()[-1] in ("PASS", "FAIL: claimed rate"), verification
