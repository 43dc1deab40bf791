"""Exported files have the form that their platforms' schemas demand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.export.common import ExportFormat
from search.export.deployment_check import check_deployment
from search.export.schema_check import INFERENCE_SERVICE_SCHEMA, check_schemas
from search.study.outcome import Outcome
from serving.platforms.reading import read_platform
from tests.search.export.conftest import export_best
from tests.search.export.kserve_schema import inference_service_schema

SERVICE = "inference-service.yaml"
pytest.importorskip("kubernetes_validate")
pytest.importorskip("botocore")


def problems(folder: Path) -> dict[str, str]:
    platform = read_platform(folder)
    assert platform is not None
    return {check.what: check.found for check in check_schemas(platform)[0] if not check.passed}


def edit(path: Path, *keys: str | int, value: object = None) -> None:
    """Set the value at these keys; remove the key if it is None."""
    is_yaml = path.suffix == ".yaml"
    document: Any = yaml.safe_load(path.read_text()) if is_yaml else json.loads(path.read_text())
    inner = document
    for key in keys[:-1]:
        inner = inner[key]
    if value is None:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    path.write_text(yaml.safe_dump(document) if is_yaml else json.dumps(document))


@pytest.mark.parametrize(
    ("export_format", "files"),
    [
        (ExportFormat.KSERVE, {SERVICE}),
        (
            ExportFormat.KUBERNETES,
            {
                *("configmap.yaml", "deployment.yaml", "horizontalpodautoscaler.yaml"),
                *("poddisruptionbudget.yaml", "service.yaml"),
            },
        ),
        (
            ExportFormat.SAGEMAKER,
            {
                *("create_model.json", "create_endpoint_config.json", "create_endpoint.json"),
                *("scalable-target.json", "scaling-policy.json"),
            },
        ),
        (ExportFormat.COMPOSE, set()),
    ],
)
def test_check_schemas_passes_exported_files(
    outcome: Outcome, export_format: ExportFormat, files: set[str]
) -> None:
    platform = read_platform(export_best(outcome, export_format).folder)
    assert platform is not None
    checks, _ = check_schemas(platform)
    assert {check.what for check in checks} == {f"schema of {file}" for file in files}
    assert all(check.passed for check in checks), checks


MODEL = ("spec", "predictor", "model")


@pytest.mark.parametrize(
    ("keys", "value", "found"),
    [
        (("spec", "predictor", "minReplica"), 2, "'minReplica' was unexpected"),
        (("spec", "predictor", "scaleMetric"), "qps", "'qps' is not one of"),
        (("spec", "predictor", "minReplicas"), "2", "must be of the type integer (got str)"),
        (("spec", "predictor", "canaryTrafficPercent"), 110, "greater than the maximum of 100"),
        (("spec", "predictor", "containerConcurrency"), -1, "less than the minimum of 0"),
        (("metadata", "name"), "3d-pets", "does not match"),
        ((*MODEL, "modelFormat"), None, "'modelFormat' is a required property"),
        ((*MODEL, "storageURI"), "gs://x", "'storageURI' was unexpected"),
        ((*MODEL, "resources", "limit"), {"cpu": 1}, "'limit' was unexpected"),
        (("spec",), None, "'spec' is a required property"),
    ],
)
def test_check_schemas_finds_what_kserve_refuses(
    outcome: Outcome, keys: tuple[str, ...], value: object, found: str
) -> None:
    folder = export_best(outcome, ExportFormat.KSERVE).folder
    document = yaml.safe_load((folder / SERVICE).read_text())
    if keys == ("spec",):
        # Without it, no reader finds the model; the schema is checked by itself.
        import jsonschema

        del document["spec"]
        schema = json.loads(INFERENCE_SERVICE_SCHEMA.read_text())
        messages = [
            e.message for e in jsonschema.Draft202012Validator(schema).iter_errors(document)
        ]
        assert messages == [found]
        return
    edit(folder / SERVICE, *keys, value=value)
    assert found in problems(folder)[f"schema of {SERVICE}"]


def test_check_schemas_shows_no_value_of_a_variable(outcome: Outcome) -> None:
    folder = export_best(outcome, ExportFormat.KSERVE).folder
    edit(folder / SERVICE, *MODEL, "env", value=[{"name": "DB_PASSWORD", "value": 4711}])
    found = problems(folder)[f"schema of {SERVICE}"]
    assert "env[0].value must be of the type string (got int)" in found and "4711" not in found
    folder = export_best(outcome, ExportFormat.SAGEMAKER).folder
    keys = ("PrimaryContainer", "Environment", "DB_PASSWORD")
    edit(folder / "create_model.json", *keys, value=4711)
    edit(folder / "environment.json", keys[-1], value=4711)
    found = problems(folder)["schema of create_model.json"]
    assert "DB_PASSWORD" in found and "4711" not in found


@pytest.mark.parametrize("key", ["apiVersion", "kind"])
def test_check_schemas_finds_a_version_or_kind_that_is_no_text(outcome: Outcome, key: str) -> None:
    folder = export_best(outcome, ExportFormat.KUBERNETES).folder
    edit(folder / "poddisruptionbudget.yaml", key, value=[1])
    found = problems(folder)
    assert found == {"schema of poddisruptionbudget.yaml": f"{key} must be of the type string"}


@pytest.mark.parametrize(
    ("file", "keys", "value"),
    [
        ("deployment.yaml", ("spec", "replica"), 2),
        ("deployment.yaml", ("spec", "selector"), None),
        ("service.yaml", ("spec", "ports", 0, "port"), None),
        ("horizontalpodautoscaler.yaml", ("spec", "metrics", 0, "pods", "target", "type"), None),
        ("poddisruptionbudget.yaml", ("spec", "maxUnavailables"), 1),
    ],
)
def test_check_schemas_finds_what_kubernetes_refuses(
    outcome: Outcome, file: str, keys: tuple[str | int, ...], value: object
) -> None:
    folder = export_best(outcome, ExportFormat.KUBERNETES).folder
    edit(folder / file, *keys, value=value)
    assert problems(folder).keys() == {f"schema of {file}"}
    findings = check_deployment(folder)
    assert [f.subject for f in findings if not f.ok] == [f"schema of {file}"]


def test_check_schemas_finds_what_systemd_ignores(outcome: Outcome) -> None:
    folder = export_best(outcome, ExportFormat.SYSTEMD).folder
    (unit,) = folder.glob("*.service")
    platform = read_platform(folder)
    assert platform is not None
    if check_schemas(platform)[1]:
        pytest.skip("systemd is not installed")
    unit.write_text(unit.read_text().replace("Restart=on-failure", "Restart=sometimes"))
    assert "sometimes" in problems(folder)[f"schema of {unit.name}"]


def test_check_schemas_names_what_it_cannot_check(
    outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = export_best(outcome, ExportFormat.KUBERNETES).folder
    monitor = {"apiVersion": "monitoring.coreos.com/v1", "kind": "ServiceMonitor"}
    (folder / "monitor.yaml").write_text(yaml.safe_dump(monitor))
    platform = read_platform(folder)
    assert platform is not None
    _, unchecked = check_schemas(platform)
    assert "monitor.yaml: Kubernetes has no schema for ServiceMonitor" in unchecked
    monkeypatch.setitem(sys.modules, "kubernetes_validate", None)
    checks, unchecked = check_schemas(platform)
    assert checks == [] and "servetune[deploy]" in unchecked[0]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_inference_service_schema_is_that_of_its_source(tmp_path: Path) -> None:
    """The data file is what its generator makes of the packages that its comment names."""
    schema = json.loads(INFERENCE_SERVICE_SCHEMA.read_text())
    wheel = next(word for word in schema["$comment"].split() if word.endswith(".whl"))
    requirement = "==".join(wheel.split("-")[:2])
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", tmp_path]
    subprocess.run([*pip, requirement], check=True)
    assert inference_service_schema(tmp_path / wheel) == schema
