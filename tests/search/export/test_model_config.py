"""Export as an archive with its own settings."""

import yaml

from search.export.common import ExportFormat
from search.study.outcome import Outcome
from tests.search.export.conftest import export_best


def test_write_model_config_notes_what_the_archive_cannot_carry(outcome: Outcome) -> None:
    result = export_best(outcome, ExportFormat.MODEL_CONFIG)
    (note,) = result.notes
    assert note.startswith("an archive cannot carry") and "-Xmx=2g" in note
    assert note in (result.folder / "README.md").read_text()
    settings = yaml.safe_load((result.folder / "model-config.yaml").read_text())
    assert settings["batchSize"] == 64
    assert "\nmodels=" not in (result.folder / "config.properties").read_text()
    assert 'MODEL_STORE:-$(dirname "$0")/model-store}' in (result.folder / "start.sh").read_text()
