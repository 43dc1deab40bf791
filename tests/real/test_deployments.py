"""Runs that start from what people deploy: each ends with files that serve as measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.spec.loading import load_spec
from tests.archives import as_folder, as_tar, make_archive
from tests.real.conftest import BATCHED, servetune

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SNAPSHOT_ENTRY = {
    **{"defaultVersion": True, "minWorkers": 1, "maxWorkers": 1, "batchSize": 2},
    **{"maxBatchDelay": 50, "responseTimeout": 60},
}


def snapshot(name: str, mar: str) -> str:
    models = {name: {"1.0": {**SNAPSHOT_ENTRY, "marName": mar}}}
    return f"model_snapshot={json.dumps({'name': 's', 'modelCount': 1, 'models': models})}\n"


@dataclass(frozen=True)
class Case:
    """A deployment: its files, and what the trial of it must have measured.

    Attributes:
        model: the name that the model is registered with.
        settings: of the baseline's trial, if the deployment is measured as a baseline.
        sections: of the specification.
    """

    properties: str = ""
    environment: str = ""
    archive: Callable[[Path], Path] = lambda mar: mar
    model_config: str = ""
    model: str = "echo"
    settings: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, Any] = field(default_factory=dict)
    body: str = '{"body": {"a": 1}}'


CASES = {
    "snapshot": Case(
        snapshot("echo", "echo.mar"),
        settings={"workers": 1, "batch_size": 2, "max_batch_delay_ms": 50},
    ),
    "snapshot with an alias": Case("# ours\r\n" + snapshot("parrot", "echo.mar"), model="parrot"),
    "envelope": Case(
        "service_envelope=json\ndefault_workers_per_model=1\n",
        settings={"workers": 1, "properties": {"service_envelope": "json"}},
        body='{"body": {"instances": [{"x": 1}]}, "expect": {"contains": "predictions"}}',
    ),
    "alias": Case("load_models=parrot=echo.mar\nasync_logging=true\n", model="parrot"),
    "archive with all settings": Case(
        model_config="minWorkers: 1\nmaxWorkers: 1\nbatchSize: 4\nmaxBatchDelay: 20\n"
        "responseTimeout: 60\n",
        settings={"workers": 1, "batch_size": 4, "max_batch_delay_ms": 20},
    ),
    "archive with a batch size": Case(
        model_config="batchSize: 2  # small\nhandler:\n  device: cpu\n",
        settings={"batch_size": 2},
    ),
    "folder": Case(archive=as_folder),
    "folder with settings": Case(archive=as_folder, model_config="batchSize: 2\n"),
    "tar": Case(archive=as_tar),
    "tar with settings": Case(archive=as_tar, model_config="batchSize: 2\n"),
    "environment": Case(
        "enable_envvars_config=true\nnumber_of_netty_threads=$$THREADS$$\n",
        environment="TS_INFERENCE_ADDRESS=http://127.0.0.1:38085\nTS_DEFAULT_RESPONSE_TIMEOUT=9\n"
        "THREADS=2\nOMP_NUM_THREADS=1\nHF_TOKEN=hf_do_not_print_me\n",
        settings={"netty_threads": 2, "properties": {"default_response_timeout": "9"}},
    ),
    "one CPU": Case(sections={"serving": {"limits": {"cpus": 1, "memory_mb": 3000}}}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_tune_of_a_deployment_ends_with_files_that_serve(
    study: Callable[..., Path], case: Case
) -> None:
    path = study(space={"batch_size": [1, 8]})
    folder = path.parent
    files = {"model_config__yaml": case.model_config} if case.model_config else {}
    archive = case.archive(make_archive(folder, BATCHED, **files))
    in_use = folder / "config.properties"
    in_use.write_bytes((case.properties or f"load_models={archive.name}\n").encode("latin-1"))
    (folder / "requests.jsonl").write_text(case.body + "\n")
    serving = {"baseline": "config.properties"}
    if case.environment:
        (folder / "environment").write_text(case.environment)
    data = yaml.safe_load(path.read_text())
    data["model"]["archive"] = archive.name
    data["serving"] = {**serving, **case.sections.get("serving", {})}
    data["space"].pop("netty_threads")  # The deployment decides.
    path.write_text(yaml.safe_dump(data))
    assert load_spec(path).archive().name == case.model

    process = servetune("tune", path, "--plain")
    output = process.communicate(timeout=280)[0]
    assert process.returncode == 0, output
    (run,) = (folder / "runs").iterdir()
    trials = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]
    assert {trial["state"] for trial in trials} <= {"COMPLETE", "PRUNED"}, output
    assert any(trial["config"].get("batch_size") == 8 for trial in trials)
    for baseline in [trial for trial in trials if trial["origin"] == "baseline"]:
        for name, value in case.settings.items():
            found = baseline["config"].get(name)
            assert found == value or (isinstance(value, dict) and found.items() >= value.items())
    written = b"".join(p.read_bytes() for p in run.rglob("*") if p.is_file())
    assert b"do_not_print_me" not in written and "do_not_print_me" not in output

    tuned = next(t["number"] for t in trials if t["config"].get("batch_size") == 8)
    # A trial that was pruned has no rate to claim.
    tuned = tuned if trials[tuned]["state"] == "COMPLETE" else 1
    exported = servetune("export", run, "--trial", tuned, "--base", in_use)
    export_output = exported.communicate(timeout=60)[0]
    assert exported.returncode == 0, export_output
    verified = servetune("verify", run / "best", "--against", run)
    verification, _ = verified.communicate(timeout=180)
    assert verification.splitlines()[-1] == "PASS", verification
