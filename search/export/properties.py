"""Export as a config.properties with a script that starts TorchServe."""

from __future__ import annotations

from search.export.common import (
    ExportRequest,
    FormatFiles,
    write_archives_if_one_overrides,
    write_start_script,
)


def write_properties(request: ExportRequest) -> FormatFiles:
    """Write start.sh; the archive is in a folder that MODEL_STORE names, or among the files."""
    text = request.target.properties_text(request.config, request.archive)
    if note := write_archives_if_one_overrides(request):
        write_start_script(request, has_archive=True)
        return FormatFiles(text, command="./start.sh", notes=(note,))
    write_start_script(request, has_archive=False)
    command = f"MODEL_STORE=/folder/of/{request.archive.path.name} ./start.sh"
    return FormatFiles(text, command)
