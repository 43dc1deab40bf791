"""Export as a Docker Compose file."""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult, urlsplit

import javaproperties

from search.export.common import (
    ExportRequest,
    FormatFiles,
    write_archives_if_one_overrides,
    write_yaml,
)
from search.export.container import HOME, TORCHSERVE_COMMAND, container_notes
from serving.configuration.production import inference_port, listen_everywhere
from serving.exported import MODEL_STORE


def write_compose(request: ExportRequest) -> FormatFiles:
    """Write compose.yaml; inference listens on all addresses of the container."""
    name = ", ".join(archive.path.name for archive in request.archives)
    text = request.target.properties_text(request.config, request.archive)
    properties = javaproperties.loads(text)
    address = urlsplit(properties.get("inference_address", "http://127.0.0.1:8080"))
    port = inference_port(properties)
    note = write_archives_if_one_overrides(request)
    store = f"./{MODEL_STORE}" if note else f"${{MODEL_STORE:?must name the folder of {name}}}"
    services = {"torchserve": _service(request, _published_port(address, port), store)}
    write_yaml(request.folder / "compose.yaml", {"services": services})
    return FormatFiles(
        listen_everywhere(text),
        command="docker compose up" if note else "MODEL_STORE=/folder/of/archive docker compose up",
        environment_use="`compose.yaml` reads it.",
        key_file_place="in the container (`docker compose exec torchserve cat key_file.json`)",
        notes=(
            *([note] if note else []),
            *container_notes(request.container_image, properties),
        ),
    )


def _published_port(address: SplitResult, port: int) -> str:
    if address.hostname == "0.0.0.0":
        return f"{port}:{port}"
    # Docker needs an address, not a name.
    host = "127.0.0.1" if address.hostname == "localhost" else address.hostname
    return f"{host}:{port}:{port}"


def _service(request: ExportRequest, published_port: str, store: str) -> dict[str, Any]:
    return {
        "image": request.container_image,
        "entrypoint": list(TORCHSERVE_COMMAND),
        "working_dir": HOME,
        "env_file": ["environment"],
        "ports": [published_port],
        "volumes": [
            f"./config.properties:{HOME}/config.properties:ro",
            f"./log4j2.xml:{HOME}/log4j2.xml:ro",
            f"{store}:{HOME}/model-store:ro",
        ],
        **_limits(request),
        "init": True,
        "restart": "unless-stopped",
    }


def _limits(request: ExportRequest) -> dict[str, Any]:
    given = request.limits
    limits: dict[str, str] = {}
    if given.cpus is not None:
        limits["cpus"] = f"{given.cpus:g}"
    if given.memory_bytes is not None:
        limits["memory"] = f"{given.memory_bytes >> 20}M"
    return {"deploy": {"resources": {"limits": limits}}} if limits else {}
