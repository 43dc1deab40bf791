"""Export as a Dockerfile on a TorchServe image."""

from __future__ import annotations

import re

import javaproperties

from search.export.common import ExportRequest, FormatFiles, write_archives_if_one_overrides
from search.export.container import HOME, TORCHSERVE_COMMAND, container_notes
from serving.archive import Archive
from serving.configuration.production import inference_port, listen_everywhere
from serving.exported import MODEL_STORE

_ARCHIVES = "models"  #: The name of the build context that holds the archive.


def write_docker(request: ExportRequest) -> FormatFiles:
    """Write a Dockerfile; the image holds the archive, its settings and the environment."""
    text = request.target.properties_text(request.config, request.archive)
    note = write_archives_if_one_overrides(request)
    image, tag = request.container_image, request.resource_name
    properties = javaproperties.loads(text)
    port = inference_port(properties)
    lines = [
        f"FROM {image}",
        f"WORKDIR {HOME}",
        f"COPY config.properties log4j2.xml {HOME}/",
        *(_copied(archive, is_exported=bool(note)) for archive in request.archives),
        *(f"ENV {name}={_quoted(text)}" for name, text in request.environment.items()),
        f"EXPOSE {port}",
        f"ENTRYPOINT {_json(TORCHSERVE_COMMAND)}",
        "CMD []",
    ]
    (request.folder / "Dockerfile").write_text("\n".join(lines) + "\n")
    context = "" if note else f"--build-context {_ARCHIVES}=/folder/of/archive "
    resources = request.resources
    limits = f" --cpus {resources.cpus:g}" if resources.cpus else ""
    limits += f" --memory {resources.memory_mb}m" if resources.memory_mb else ""
    run = f"docker run --init -p {port}:{port}{limits}"
    return FormatFiles(
        listen_everywhere(text),
        command=f"docker build {context}-t {tag} . && {run} {tag}",
        environment_use="The `Dockerfile` has the same variables.",
        key_file_place=f"in the container ({HOME}/key_file.json)",
        readme_items=(
            "- `Dockerfile`: needs BuildKit for `--build-context`. For Vertex AI, name the port\n"
            f"  {port} and the routes `/predictions/{request.archive.name}` and `/ping`.\n"
            "- What this format cannot carry: limits. Those of `docker run` are\n"
            f"  {resources.origin}.\n"
        ),
        notes=(*([note] if note else []), *container_notes(image, properties)),
    )


def _copied(archive: Archive, is_exported: bool) -> str:
    """Return the instruction that copies an archive, from the files or from its folder."""
    name, store = archive.path.name, f"{HOME}/{MODEL_STORE}"
    source = f"{MODEL_STORE}/{name}" if is_exported else f"--from={_ARCHIVES} {name}"
    return f"COPY {source} {store}/{name if archive.path.is_dir() else ''}"


def _quoted(text: str) -> str:
    return '"' + re.sub(r'([\\"$])', r"\\\1", text) + '"'


def _json(words: tuple[str, ...]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"
