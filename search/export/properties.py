"""Export as a config.properties with a script that starts TorchServe."""

from __future__ import annotations

from search.export.common import ExportRequest, FormatFiles, write_start_script


def write_properties(request: ExportRequest) -> FormatFiles:
    """Write start.sh; the archive is in a folder that MODEL_STORE names."""
    write_start_script(request, "?must name the folder of the archive")
    return FormatFiles(
        request.target.properties_text(request.config, request.archive),
        command=f"MODEL_STORE=/folder/of/{request.archive.path.name} ./start.sh",
    )
