"""Export as a Docker Compose file."""

from pathlib import Path

import yaml

from search.export.common import ExportFormat
from search.study.outcome import Outcome
from serving.configuration.production import DeploymentTarget
from tests.archives import make_archive
from tests.search.export.conftest import export_best


def test_write_compose_publishes_the_inference_port_and_notes_paths(outcome: Outcome) -> None:
    given = {"inference_address": "https://127.0.0.1:8443", "private_key_file": "/tls/key.pem"}
    result = export_best(outcome, ExportFormat.COMPOSE, DeploymentTarget(given=given))
    compose = yaml.safe_load((result.folder / "compose.yaml").read_text())
    service = compose["services"]["torchserve"]
    assert service["ports"] == ["127.0.0.1:8443:8443"] and service["env_file"] == ["environment"]
    text = (result.folder / "config.properties").read_text()
    assert "inference_address=https://0.0.0.0:8443" in text and "vmargs=-Xmx2g" in text
    assert any("/tls/key.pem is a path in the container" in note for note in result.notes)
    assert not (result.folder / "start.sh").exists()


def test_write_compose_mounts_an_archive_that_carries_the_settings(
    outcome: Outcome, tmp_path: Path
) -> None:
    make_archive(tmp_path, model_config__yaml="batchSize: 4\n")
    folder = export_best(outcome, ExportFormat.COMPOSE).folder
    compose = yaml.safe_load((folder / "compose.yaml").read_text())
    volumes = compose["services"]["torchserve"]["volumes"]
    assert "./model-store:/home/model-server/model-store:ro" in volumes
    assert (folder / "model-store" / "echo.mar").is_file()
