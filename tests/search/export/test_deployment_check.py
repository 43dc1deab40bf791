"""What overrides a setting of a deployment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from search.cli.main import run_command
from search.export.common import ExportFormat
from search.export.deployment_check import check_deployment
from search.study.outcome import Outcome
from servetune.errors import ExitStatus
from serving.configuration.production import DeploymentTarget
from serving.errors import ConfigError
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


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("export_format", [ExportFormat.COMPOSE, ExportFormat.KUBERNETES])
@pytest.mark.parametrize(
    ("settings", "key", "subject"),
    [
        ("minWorkers: 1\nmaxWorkers: 1\n", "minWorkers", "workers"),
        ("batchSize: 4\n", "batchSize", "batch_size"),
        ("responseTimeout: 7\n", None, "response_timeout_s"),
    ],
)
def test_check_deployment_finds_settings_of_the_archive(
    outcome: Outcome, export_format: ExportFormat, settings: str, key: str | None, subject: str
) -> None:
    archive = outcome.spec.model.archive
    folder = export_best(outcome, export_format).folder
    make_archive(archive.parent, name=archive.stem, model_config__yaml=settings)
    found = problems(folder, archive)
    assert {"archive", subject} <= found.keys() and (key is None or key in found)


_ENV = ("deployment.yaml", "        env:\n", "        env:\n        - {name: NAME, value: '9'}\n")
_SERVICE = (
    "inference-service.yaml",
    "      env:\n",
    "      env:\n      - {name: NAME, value: '9'}\n",
)


@pytest.mark.parametrize(
    ("export_format", "file", "old", "new"),
    [
        (
            ExportFormat.COMPOSE,
            *("compose.yaml", "    env_file:", "    environment: [NAME=9]\n    env_file:"),
        ),
        (ExportFormat.DOCKER, "Dockerfile", "EXPOSE", "ENV NAME=9\nEXPOSE"),
        (ExportFormat.SYSTEMD, "environment", "MKL", "NAME=9\nMKL"),
        (ExportFormat.KUBERNETES, *_ENV),
        (ExportFormat.KSERVE, *_SERVICE),
    ],
)
def test_check_deployment_refuses_another_config_properties(
    outcome: Outcome, export_format: ExportFormat, file: str, old: str, new: str
) -> None:
    folder = export_best(outcome, export_format).folder
    edit(folder / file, old, new.replace("NAME", "TS_CONFIG_FILE"))
    with pytest.raises(ConfigError, match="TS_CONFIG_FILE, which takes precedence"):
        check_deployment(folder)


def test_check_deployment_finds_variables_of_a_pod(outcome: Outcome) -> None:
    target = DeploymentTarget("enable_envvars_config=true\njob_queue_size=5\n")
    folder = export_best(outcome, ExportFormat.KUBERNETES, target).folder
    edit(folder / _ENV[0], _ENV[1], _ENV[2].replace("NAME", "TS_JOB_QUEUE_SIZE"))
    found = [f.found for f in check_deployment(folder, outcome.spec.model.archive) if not f.ok]
    assert any("TS_JOB_QUEUE_SIZE=9 overrides the line job_queue_size=5" in text for text in found)


def test_check_deployment_finds_another_envelope_than_the_platforms(outcome: Outcome) -> None:
    folder = export_best(outcome, ExportFormat.KSERVE).folder
    new = _SERVICE[2].replace("NAME", "TS_SERVICE_ENVELOPE").replace("'9'", "kservev2")
    edit(folder / _SERVICE[0], _SERVICE[1], new)
    found = problems(folder, outcome.spec.model.archive)
    assert found == {"properties.service_envelope": "kservev2; the export wrote kserve"}


@pytest.mark.parametrize(
    ("words", "is_found"),
    [
        ("        - --models\n        - other=other.mar\n", True),
        ("        - --models=echo.mar\n", False),
        ("        - --models\n        - echo.mar\n", False),
    ],
)
def test_check_deployment_finds_models_of_the_command(
    outcome: Outcome, words: str, is_found: bool
) -> None:
    folder = export_best(outcome, ExportFormat.KUBERNETES).folder
    edit(folder / "deployment.yaml", "        - --ncs\n", f"        - --ncs\n{words}")
    assert ("load_models" in problems(folder, outcome.spec.model.archive)) is is_found


@pytest.mark.parametrize(
    ("options", "is_found"),
    [
        ("--start --foreground", True),
        ("--start --ncs", False),
        ("--start --ts-config=config.properties", False),
    ],
)
def test_check_deployment_finds_that_a_snapshot_may_take_precedence(
    tmp_path: Path, options: str, is_found: bool
) -> None:
    (tmp_path / "config.properties").write_text("load_models=a.mar\n")
    unit = tmp_path / "a.service"
    unit.write_text(f"[Service]\nExecStart=/usr/bin/torchserve {options}\n")
    assert ("snapshot" in problems(tmp_path, make_archive(tmp_path, name="a"))) is is_found


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize(
    "lines",
    [
        "ExecStart=/opt/x/torchserve --start --foreground --ncs\nExecStop=/opt/x/torchserve --stop\n",
        "ExecStart=\nExecStart=/opt/x/torchserve --start --foreground --ncs\n",
        "ExecStart = /opt/x/torchserve --start --foreground --ncs\nExecStartPre=-/opt/x/y\n",
        "ExecStart=/opt/x/torchserve \\\n  --start --foreground --ncs\n",
    ],
    ids=["stop", "reset", "spaces", "continued"],
)
def test_check_deployment_accepts_units_whose_commands_are_elsewhere(
    tmp_path: Path, lines: str
) -> None:
    (tmp_path / "config.properties").write_text("load_models=a.mar\n")
    (tmp_path / "a.service").write_text(f"[Service]\n{lines}")
    found = problems(tmp_path, make_archive(tmp_path, name="a"))
    assert not [what for what in found if "a.service" in what]


def test_check_deployment_refuses_two_environments_of_sagemaker(outcome: Outcome) -> None:
    folder = export_best(outcome, ExportFormat.SAGEMAKER).folder
    edit(folder / "create_model.json", '"SAGEMAKER_TS_BATCH_SIZE"', '"X"')
    with pytest.raises(ConfigError, match="differ in SAGEMAKER_TS_BATCH_SIZE, X: "):
        check_deployment(folder)


@pytest.mark.parametrize(
    ("variables", "note"),
    [
        ({"SAGEMAKER_TS_BATCH_SIZE": "8"}, "sets the others to its defaults"),
        ({"SAGEMAKER_TS_STARTUP_TIMEOUT": "8"}, "SAGEMAKER_TS_STARTUP_TIMEOUT is not known"),
        ({"SAGEMAKER_MODEL_SERVER_TIMEOUT": "8"}, "has no effect"),
        ({"SAGEMAKER_TS_MAX_BATCH_DELAY": "50000"}, "milliseconds, not microseconds"),
        (
            {"SAGEMAKER_TS_BATCH_SIZE": "8", "SAGEMAKER_MULTI_MODEL": "true"},
            "ignored, because SAGEMAKER_MULTI_MODEL is true",
        ),
        ({"SAGEMAKER_TS_BATCH_SIZE": "8", "TS_CONFIG_FILE": "/x"}, "TorchServe reads that file"),
    ],
)
def test_check_deployment_notes_side_effects_of_sagemakers_variables(
    tmp_path: Path, variables: dict[str, str], note: str
) -> None:
    path = tmp_path / "environment.json"
    path.write_text(json.dumps(variables))
    found = [finding.found for finding in check_deployment(path)]
    assert any(note in text for text in found), found
