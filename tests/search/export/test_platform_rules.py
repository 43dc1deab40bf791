"""Exported files follow rules of their platforms that no schema states."""

from __future__ import annotations

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml

from search.export.common import ExportFormat, ExportRequest
from search.export.files import export
from search.study.outcome import Outcome
from serving.archive import Archive
from serving.configuration.config import ServerConfig
from serving.configuration.production import DeploymentTarget
from serving.platforms.reading import read_platform
from tests.archives import make_archive
from tests.search.export.conftest import export_best

PORT_9000 = DeploymentTarget(given={"inference_address": "http://0.0.0.0:9000"})


def exported(outcome: Outcome, config: ServerConfig, export_format: ExportFormat) -> Path:
    assert outcome.best is not None
    result = replace(outcome.best, config=config)
    return export(outcome.run, result, outcome.spec.archive(), None, export_format).folder


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def container(folder: Path) -> Any:
    (found,) = read_yaml(folder / "deployment.yaml")["spec"]["template"]["spec"]["containers"]
    return found


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("pets", "pets"),
        ("Pets_V2.1", "pets-v2-1"),
        ("3d-pets", "model-3d-pets"),
        ("___", "model"),
        ("9" * 80, "model-" + "9" * 44),
        ("a" * 49 + "-b", "a" * 49),
    ],
)
def test_resource_name_is_a_label_that_begins_with_a_letter(
    tmp_path: Path, model: str, name: str
) -> None:
    archive = Archive.read(make_archive(tmp_path, name="a")).registered_as(model)
    request = ExportRequest(
        *(tmp_path, ServerConfig(), archive, DeploymentTarget(), None, {}),
        *(MagicMock(), MagicMock()),
    )
    assert request.resource_name == name


@pytest.mark.parametrize(
    ("address", "port", "scheme"),
    [
        ("http://0.0.0.0:8080", 8080, "HTTP"),
        ("http://127.0.0.1:9000", 9000, "HTTP"),
        ("https://0.0.0.0:8443", 8443, "HTTPS"),
    ],
)
def test_deployment_probes_the_port_and_the_scheme_of_inference(
    outcome: Outcome, address: str, port: int, scheme: str
) -> None:
    target = DeploymentTarget(given={"inference_address": address})
    found = container(export_best(outcome, ExportFormat.KUBERNETES, target).folder)
    assert found["ports"] == [{"name": "http", "containerPort": port}]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert found[probe]["httpGet"] == {"path": "/ping", "port": "http", "scheme": scheme}
    folder = export_best(outcome, ExportFormat.DOCKER, target).folder
    assert f"EXPOSE {port}\n" in (folder / "Dockerfile").read_text()
    assert f"-p {port}:{port} " in (folder / "README.md").read_text()


def test_deployment_is_replaced_when_its_configuration_changes(outcome: Outcome) -> None:
    def digest(target: DeploymentTarget | None = None) -> str:
        folder = export_best(outcome, ExportFormat.KUBERNETES, target).folder
        template = read_yaml(folder / "deployment.yaml")["spec"]["template"]
        return str(template["metadata"]["annotations"]["servetune/config-sha256"])

    assert digest() == digest() != digest(PORT_9000)


def test_deployment_leaves_the_replicas_to_the_autoscaler(outcome: Outcome) -> None:
    folder = export_best(outcome, ExportFormat.KUBERNETES).folder
    assert "replicas" not in read_yaml(folder / "deployment.yaml")["spec"]
    assert read_yaml(folder / "horizontalpodautoscaler.yaml")["spec"]["minReplicas"] == 2


def test_deployment_stops_torchserve_before_its_pod_is_killed(outcome: Outcome) -> None:
    folder = export_best(outcome, ExportFormat.KUBERNETES).folder
    command = container(folder)["lifecycle"]["preStop"]["exec"]["command"]
    assert command[-1].endswith("torchserve --stop")


def test_kubernetes_notes_that_each_pod_has_its_own_tokens(outcome: Outcome) -> None:
    def has_note(target: DeploymentTarget | None = None) -> bool:
        notes = export_best(outcome, ExportFormat.KUBERNETES, target).notes
        return any("each pod generates its own tokens" in note for note in notes)

    assert has_note()
    assert not has_note(DeploymentTarget(given={"disable_token_authorization": "true"}))


def test_kubernetes_readme_says_where_the_metrics_are(outcome: Outcome) -> None:
    def readme(target: DeploymentTarget | None = None) -> str:
        return (
            export_best(outcome, ExportFormat.KUBERNETES, target).folder / "README.md"
        ).read_text()

    assert "--set metrics_address=" in readme()
    address = "http://0.0.0.0:9002"
    assert f"It is at {address} in" in readme(DeploymentTarget(given={"metrics_address": address}))


@pytest.mark.parametrize("export_format", [ExportFormat.KUBERNETES, ExportFormat.KSERVE])
@pytest.mark.parametrize("text", ["$(A)", "$$", "$$(A) $(B", "$(B)$", "$A", "cost: $5"])
def test_variables_are_not_expanded_by_kubernetes(
    outcome: Outcome, export_format: ExportFormat, text: str
) -> None:
    config = ServerConfig(environment={"A": "1", "NOTE": text})
    platform = read_platform(exported(outcome, config, export_format))
    assert platform is not None and platform.environment["NOTE"] == text


def test_manifests_have_no_aliases_and_readable_texts(outcome: Outcome) -> None:
    folder = export_best(outcome, ExportFormat.KUBERNETES).folder
    for path in folder.glob("*.yaml"):
        assert "&id" not in path.read_text()
    assert "\n    models=" in (folder / "configmap.yaml").read_text()


def inference_service(outcome: Outcome, config: ServerConfig) -> Any:
    return read_yaml(exported(outcome, config, ExportFormat.KSERVE) / "inference-service.yaml")


@pytest.mark.parametrize("job_queue_size", [50, 1000, 5000])
def test_kserve_asks_for_no_more_concurrency_than_knative_permits(
    outcome: Outcome, job_queue_size: int
) -> None:
    predictor = inference_service(outcome, ServerConfig(job_queue_size=job_queue_size))["spec"][
        "predictor"
    ]
    assert job_queue_size <= predictor["containerConcurrency"] or job_queue_size > 1000
    assert predictor["scaleTarget"] <= predictor["containerConcurrency"] <= 1000
    notes = (outcome.run.folder / "best-kserve" / "README.md").read_text()
    assert ("Knative permits" in notes) is (job_queue_size >= 1000)


def test_kserve_scales_at_the_whole_target(outcome: Outcome) -> None:
    """Knative would add pods at 70 % of the target, which has its own headroom."""
    annotations = inference_service(outcome, ServerConfig())["metadata"]["annotations"]
    assert annotations == {"autoscaling.knative.dev/target-utilization-percentage": "100"}


def test_kserve_notes_what_it_refuses_and_the_version_of_its_image(outcome: Outcome) -> None:
    inference_service(outcome, ServerConfig(environment={"PYTHONPATH": "/opt/x"}))
    readme = (outcome.run.folder / "best-kserve" / "README.md").read_text()
    assert "KServe 0.18 and later refuse the variable PYTHONPATH" in readme
    assert "KServe's image has TorchServe 0.9.0" in readme


@pytest.mark.parametrize("export_format", ExportFormat)
def test_readme_says_what_carries_the_limits(outcome: Outcome, export_format: ExportFormat) -> None:
    specification = outcome.run.folder / "spec.yaml"
    data = yaml.safe_load(specification.read_text())
    data["serving"]["limits"] = {"cpus": 1.5, "memory_mb": 900}
    specification.write_text(yaml.safe_dump(data))
    folder = export_best(outcome, export_format).folder
    text = "".join(path.read_text() for path in folder.iterdir() if path.suffix in (".md", ".yaml"))
    text += "".join(path.read_text() for path in folder.glob("*.service"))
    assert any(cpus in text for cpus in ("1.5", "1500m", "CPUQuota=150%")) and "900" in text


@pytest.mark.parametrize("export_format", ExportFormat)
def test_readme_and_pull_request_have_the_claimed_rate(
    outcome: Outcome, export_format: ExportFormat
) -> None:
    readme = (export_best(outcome, export_format).folder / "README.md").read_text()
    assert "| claimed rate | 250.0 rps: the search alone" in readme


def test_sagemaker_script_deploys_what_the_files_have(
    outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = export_best(outcome, ExportFormat.SAGEMAKER).folder
    model, client = MagicMock(), MagicMock()
    monkeypatch.setitem(sys.modules, "sagemaker", MagicMock())
    monkeypatch.setitem(sys.modules, "sagemaker.pytorch", SimpleNamespace(PyTorchModel=model))
    monkeypatch.setitem(sys.modules, "boto3", SimpleNamespace(client=lambda name: client))
    runpy.run_path(str(folder / "deploy.py"))

    def read(name: str) -> dict[str, Any]:
        return dict(json.loads((folder / name).read_text()))

    assert model.call_args.kwargs["env"] == read("environment.json")
    variant = read("create_endpoint_config.json")["ProductionVariants"][0]
    deployed = model.return_value.deploy.call_args.kwargs
    assert deployed["initial_instance_count"] == variant["InitialInstanceCount"]
    assert deployed["endpoint_name"] == read("create_endpoint.json")["EndpointName"]
    assert client.register_scalable_target.call_args.kwargs == read("scalable-target.json")
    assert client.put_scaling_policy.call_args.kwargs == read("scaling-policy.json")
