"""Export as a Docker Compose file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

import javaproperties
import yaml

from search.export.common import ExportRequest, FormatFiles, write_archive_if_it_overrides
from serving.exported import MODEL_STORE
from serving.production import edit_properties
from serving.versions import TorchServeVersion

_HOME = "/home/model-server"
_PATH_PROPERTIES = ("keystore", "private_key_file", "certificate_file", "plugins_path")


def default_image(version: TorchServeVersion) -> str:
    """Return TorchServe's own image of a version."""
    return f"pytorch/torchserve:{version.number}-cpu"


def write_compose(request: ExportRequest) -> FormatFiles:
    """Write compose.yaml; inference listens on all addresses of the container."""
    name = request.archive.path.name
    text = request.target.properties_text(request.config, request.archive)
    properties = javaproperties.loads(text)
    address = urlsplit(properties.get("inference_address", "http://127.0.0.1:8080"))
    port = address.port or (443 if address.scheme == "https" else 80)
    note = write_archive_if_it_overrides(request)
    store = f"./{MODEL_STORE}" if note else f"${{MODEL_STORE:?must name the folder of {name}}}"
    services = {"torchserve": _service(request, _published_port(address, port), store)}
    compose = yaml.safe_dump({"services": services}, sort_keys=False, width=1000)
    (request.folder / "compose.yaml").write_text(compose)
    return FormatFiles(
        edit_properties(text, {"inference_address": f"{address.scheme}://0.0.0.0:{port}"}),
        command="docker compose up" if note else f"MODEL_STORE=/folder/of/{name} docker compose up",
        environment_use="`compose.yaml` reads it.",
        key_file_place="in the container (`docker compose exec torchserve cat key_file.json`)",
        notes=(*([note] if note else []), *_notes(request.image, properties)),
    )


def _published_port(address: SplitResult, port: int) -> str:
    if address.hostname == "0.0.0.0":
        return f"{port}:{port}"
    # Docker needs an address, not a name.
    host = "127.0.0.1" if address.hostname == "localhost" else address.hostname
    return f"{host}:{port}:{port}"


def _service(request: ExportRequest, published_port: str, store: str) -> dict[str, Any]:
    return {
        "image": request.image,
        "entrypoint": [
            *("torchserve", "--start", "--foreground", "--ncs"),
            *("--model-store", f"{_HOME}/model-store"),
            *("--ts-config", f"{_HOME}/config.properties"),
            *("--log-config", f"{_HOME}/log4j2.xml"),
        ],
        "working_dir": _HOME,
        "env_file": ["environment"],
        "ports": [published_port],
        "volumes": [
            f"./config.properties:{_HOME}/config.properties:ro",
            f"./log4j2.xml:{_HOME}/log4j2.xml:ro",
            f"{store}:{_HOME}/model-store:ro",
        ],
        "init": True,
        "restart": "unless-stopped",
    }


def _notes(image: str, properties: Mapping[str, str]) -> tuple[str, ...]:
    return (
        f"the image {image} has different versions of Python, torch and Java: measure whether it "
        "sustains the same rate",
        "management and metrics listen only inside the container: use docker compose exec",
        *(
            f"{key}={path} is a path in the container: mount it"
            for key, path in properties.items()
            if key in _PATH_PROPERTIES
        ),
    )
