"""Export as a Docker Compose file."""

import yaml

from search.export.common import ExportFormat
from search.study.outcome import Outcome
from serving.production import DeploymentTarget
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
