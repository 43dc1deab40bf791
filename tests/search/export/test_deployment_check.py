"""What overrides a setting of a deployment."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.cli.main import run_command
from search.export.common import ExportFormat
from search.export.deployment_check import check_deployment
from search.study.outcome import Outcome
from servetune.errors import ExitStatus
from tests.archives import make_archive
from tests.search.export.conftest import export_best


def problems(path: Path, archive: Path | None = None) -> dict[str, str]:
    return {f.subject: f.found for f in check_deployment(path, archive) if not f.ok}


@pytest.mark.parametrize("export_format", ExportFormat)
def test_check_deployment_passes_exported_files(
    outcome: Outcome, export_format: ExportFormat
) -> None:
    archive = outcome.spec.model.archive
    assert problems(export_best(outcome, export_format).folder, archive) == {}


def test_check_deployment_finds_what_overrides_exported_files(outcome: Outcome) -> None:
    archive = outcome.spec.model.archive
    folder = export_best(outcome, ExportFormat.PROPERTIES).folder
    make_archive(archive.parent, name=archive.stem, model_config__yaml="batchSize: 4\n")
    assert {"archive", "batch_size", "batchSize"} <= problems(folder, archive).keys()


def test_check_deployment_finds_variables_and_snapshots(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.properties"
    path.write_text(
        "enable_envvars_config=true\njob_queue_size=5\nmodels={}\n"
        'model_snapshot={"models":{"a":{"1.0":{"marName":"a.mar","defaultVersion":true,"minWorkers":1,"maxWorkers":1,'
        '"batchSize":1,"maxBatchDelay":1}}}}\n'
    )
    (tmp_path / "environment").write_text("TS_JOB_QUEUE_SIZE=9\n")
    found = problems(path)
    assert found["job_queue_size"] == (
        "the variable TS_JOB_QUEUE_SIZE=9 overrides the line job_queue_size=5"
    )
    assert "never read" in found["models"]
    assert run_command(["doctor", "--deployment", str(tmp_path)]) == ExitStatus.FAILED
    assert "TS_JOB_QUEUE_SIZE" in capsys.readouterr().out
    assert run_command(["doctor", "--deployment", str(tmp_path / "none")]) == ExitStatus.BAD_INPUT
