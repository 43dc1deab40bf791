"""Export as a systemd unit."""

from __future__ import annotations

from search.export.common import (
    ExportRequest,
    FormatFiles,
    fill_template,
    write_archives_if_one_overrides,
)
from serving.exported import MODEL_STORE


def write_systemd(request: ExportRequest) -> FormatFiles:
    """Write a unit that reads its files from /etc and the archive from /var/lib."""
    text = request.target.properties_text(request.config, request.archive)
    note = write_archives_if_one_overrides(request)
    name = f"torchserve-{request.resource_name}"
    given, limits = request.limits, []
    if given.cpus is not None:
        limits.append(f"CPUQuota={100 * given.cpus:g}%")
    if given.memory_bytes is not None:
        limits.append(f"MemoryMax={given.memory_bytes >> 20}M")
    unit = fill_template(
        "systemd.service",
        model=request.archive.name,
        name=name,
        limits="".join(f"{line}\n" for line in limits),
    )
    (request.folder / f"{name}.service").write_text(unit)
    store = MODEL_STORE if note else "/folder/of/archive"
    archive = " ".join(f"{store}/{each.path.name}" for each in request.archives)
    command = fill_template("systemd_install", name=name, archive=archive).strip()
    return FormatFiles(
        text,
        command=command,
        environment_use=f"`{name}.service` reads it as its EnvironmentFile.",
        key_file_place=f"in /var/lib/{name}",
        readme_items=(
            f"- `{name}.service`: the unit. It expects the command `torchserve` in\n"
            "  /opt/torchserve/bin; change ExecStart and PATH if it is in another place.\n"
        ),
        notes=(note,) if note else (),
    )
