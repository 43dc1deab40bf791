"""Each format carries every configuration: it is read back equal, and its files are valid."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.cli.main import run_command
from search.export.common import ExportFormat
from search.export.exported_files import ExportedFiles, compare_settings
from search.export.files import export
from search.export.schema_check import check_schemas
from search.study.outcome import Outcome
from servetune.errors import ExitStatus
from serving.configuration.config import SETTINGS, ServerConfig
from serving.limits import Limits
from serving.platforms.reading import read_platform
from tests.search.export.configurations import random_config
from tests.search.export.conftest import carried_by

#: Configurations for each format; `make test-all` tries a thousand.
EXAMPLES = 1000 if int(os.environ.get("FUZZ_EXAMPLES", "0")) >= 5000 else 50


def exported(
    outcome: Outcome, config: ServerConfig, export_format: ExportFormat, **options: Any
) -> Path:
    """Return the folder of the files of one configuration, as if it were the best trial's."""
    assert outcome.best is not None
    result = replace(outcome.best, config=config)
    archive = outcome.spec.archive()
    return export(outcome.run, result, archive, None, export_format, **options).folder


def imported(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run_command(["import", *arguments, "--json"]) == ExitStatus.OK
    return dict(json.loads(capsys.readouterr().out))


@pytest.mark.fuzz
@pytest.mark.timeout(300 if EXAMPLES <= 50 else 3600)
@pytest.mark.parametrize("export_format", ExportFormat)
def test_export_carries_every_configuration(
    outcome: Outcome,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    export_format: ExportFormat,
) -> None:
    kubernetes = pytest.importorskip("kubernetes_validate.utils")
    pytest.importorskip("botocore")
    monkeypatch.setattr(kubernetes, "schema_contents", cache(kubernetes.schema_contents))
    for seed in range(EXAMPLES):
        config = carried_by(export_format, random_config(seed))
        # The export itself reads its files back, and fails if a setting is lost.
        folder = exported(outcome, config, export_format)
        archive = folder / "model-store" / "echo.mar"
        options = ("--archive", str(archive)) if archive.is_file() else ()
        settings = imported(capsys, str(folder), *options)["settings"]
        for name in SETTINGS:
            if (value := getattr(config, name)) is not None:
                assert settings[name] == value, (seed, name)
        assert config.environment.items() <= settings.get("environment", {}).items(), seed
        assert config.jvm.items() <= settings.get("jvm", {}).items(), seed
        assert config.properties.items() <= settings.get("properties", {}).items(), seed
        # A unit does not depend on the configuration.
        if export_format is not ExportFormat.SYSTEMD or seed == 0:
            check_form(folder)


def check_form(folder: Path) -> None:
    """Check the files of a platform against its schemas."""
    platform = read_platform(folder)
    assert platform is not None
    invalid = [check for check in check_schemas(platform)[0] if not check.passed]
    assert invalid == []


def test_export_writes_a_valid_script_for_sagemaker(outcome: Outcome) -> None:
    folder = exported(outcome, random_config(2), ExportFormat.SAGEMAKER, load_rps=1000.0)
    check_form(folder)
    compile((folder / "deploy.py").read_text(), "deploy.py", "exec")


def test_export_scales_by_the_claimed_rate(outcome: Outcome) -> None:
    folder = exported(
        outcome, ServerConfig(), ExportFormat.KUBERNETES, load_rps=1000.0, headroom=0.2
    )
    autoscaler = yaml.safe_load((folder / "horizontalpodautoscaler.yaml").read_text())["spec"]
    (metric,) = autoscaler["metrics"]
    assert metric["pods"]["target"]["averageValue"] == "200000m", "80 % of 250 rps"
    assert (autoscaler["minReplicas"], autoscaler["maxReplicas"]) == (5, 10)
    folder = exported(outcome, ServerConfig(), ExportFormat.SAGEMAKER, headroom=0.5)
    policy = json.loads((folder / "scaling-policy.json").read_text())
    configuration = policy["TargetTrackingScalingPolicyConfiguration"]
    assert configuration["TargetValue"] == 250 * 0.5 * 60


@pytest.mark.parametrize(
    "export_format", [ExportFormat.COMPOSE, ExportFormat.SYSTEMD, ExportFormat.KUBERNETES]
)
def test_export_carries_the_limits_of_the_trial(
    outcome: Outcome, export_format: ExportFormat
) -> None:
    specification = outcome.run.folder / "spec.yaml"
    data = yaml.safe_load(specification.read_text())
    data["serving"]["limits"] = {"cpus": 1.5, "memory_mb": 900}
    specification.write_text(yaml.safe_dump(data))
    platform = read_platform(exported(outcome, ServerConfig(), export_format))
    assert platform is not None and platform.limits == Limits(1.5, 900 << 20)


@pytest.mark.parametrize("limits", [{"cpus": 0.75}, {"memory_mb": 700}])
@pytest.mark.parametrize("export_format", ExportFormat)
def test_exported_files_have_the_limits_of_the_trial_and_report_changes(
    outcome: Outcome, tmp_path: Path, export_format: ExportFormat, limits: dict[str, float]
) -> None:
    specification = outcome.run.folder / "spec.yaml"
    data = yaml.safe_load(specification.read_text())
    data["serving"]["limits"] = limits
    specification.write_text(yaml.safe_dump(data))
    folder = exported(outcome, ServerConfig(), export_format)
    store = outcome.spec.model.archive.parent
    files = ExportedFiles.read(folder, store, tmp_path)
    assert files.limits.cpus in (limits.get("cpus"), 2), "or the cores of the host"
    if "memory_mb" in limits:
        assert files.limits.memory_bytes == 700 << 20
    (name,) = limits
    without = replace(files, platform=replace(files.platform, limits=Limits()))
    failed = [c.what for c in compare_settings(without, files.claim["settings"]) if not c.passed]
    has_limits = export_format in ("compose", "systemd", "kserve", "kubernetes")
    assert failed == ([f"limit {name}"] if has_limits else [])


def test_sagemaker_refuses_what_no_variable_carries(
    outcome: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    from serving.errors import ConfigError

    config = ServerConfig(properties={"io_ratio": "70"})
    with pytest.raises(ConfigError, match="no variable for io_ratio=70; export --format docker"):
        exported(outcome, config, ExportFormat.SAGEMAKER)
    assert not (outcome.run.folder / "best-sagemaker").exists()
