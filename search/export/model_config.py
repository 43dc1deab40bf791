"""Export as a model archive that carries the settings of its model."""

from __future__ import annotations

from dataclasses import replace

from search.export.common import ExportRequest, FormatFiles, write_archives, write_start_script
from search.report.formatting import format_settings
from serving.configuration.config import ServerConfig
from serving.configuration.model_config import without_archive_settings
from serving.exported import MODEL_STORE


def write_model_config(request: ExportRequest) -> FormatFiles:
    """Write the archive, its model-config.yaml, and start.sh for the rest of the configuration.

    Raises:
        ArchiveError: the model-config.yaml of the original archive cannot be extended.
    """
    name = request.archive.path.name
    text = write_archives(request)
    (request.folder / "model-config.yaml").write_text(text)
    write_start_script(request, has_archive=True)
    outside = without_archive_settings(request.config)
    only_outside = replace(outside, job_queue_size=None)  # The archive carries it as well.
    notes = []
    if only_outside != ServerConfig():
        notes.append(
            f"an archive cannot carry {format_settings(only_outside)}: if you deploy the archive "
            "alone, TorchServe uses its defaults for these"
        )
    return FormatFiles(
        request.target.properties_text(outside, request.archive),
        command="./start.sh",
        readme_items=(
            f"- `{MODEL_STORE}/{name}`: the archive with `model-config.yaml` inside. These\n"
            "  settings take precedence over the model's settings in any config.properties. A\n"
            "  copy of `model-config.yaml` is in this folder for reference.\n"
        ),
        notes=tuple(notes),
    )
