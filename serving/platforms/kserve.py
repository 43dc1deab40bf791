"""KServe: an InferenceService, with the folder that its storageUri names."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from serving.errors import ConfigError
from serving.platforms.command import Command, find_command
from serving.platforms.files import (
    PlatformFiles,
    config_path,
    config_source,
    expand_references,
    is_file,
    one,
    read_bytes_as_text,
    read_documents,
    read_limits,
)
from serving.platforms.kubernetes import ConfigMaps, mounted_file, read_variables

#: Below the folder that storageUri names. Source: the runtime kserve-torchserve.
CONFIG_FILE = Path("config", "config.properties")
MODEL_STORE = "model-store"
#: The envelope that the platform sets for each version of its protocol.
ENVELOPES = {"v1": "kserve", "v2": "kservev2"}
_MOUNT = "/mnt/models"
_DEFAULT_CONFIG = f"{_MOUNT}/{CONFIG_FILE}"
ARGUMENTS = (
    "--start",
    f"--model-store={_MOUNT}/{MODEL_STORE}",
    f"--ts-config={_DEFAULT_CONFIG}",
)


def prediction_path(model: str, envelope: str) -> str:
    """Return the path of requests for a prediction of a model.

    Args:
        envelope: the one that the platform sets; protocol v1 if it is another.
    """
    name = quote(model, safe="")
    return (
        f"/v2/models/{name}/infer" if envelope == ENVELOPES["v2"] else f"/v1/models/{name}:predict"
    )


def is_inference_service(documents: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the documents have an InferenceService."""
    return any(document.get("kind") == "InferenceService" for document in documents)


def read_kserve(paths: Sequence[Path], storage: Path | None = None) -> PlatformFiles:
    """Read an InferenceService, and config.properties in its storage or in a ConfigMap.

    Args:
        paths: the YAML files.
        storage: the folder that storageUri names; the folder of the files if None.

    Raises:
        ConfigError: there is not exactly one InferenceService with a PyTorch model, or its
            config.properties is neither in its storage nor in a ConfigMap in the files.
    """
    documents = [document for path in paths for document in read_documents(path)]
    services = [document for document in documents if document.get("kind") == "InferenceService"]
    service = one(services, "InferenceServices", paths[0])
    predictor = (service.get("spec") or {}).get("predictor") or {}
    model = predictor.get("model") or predictor.get("pytorch")
    if not isinstance(model, dict):
        raise ConfigError(
            f"{paths[0]}: the InferenceService has no predictor.model of the format pytorch"
        )
    folders = [storage] if storage else [path.parent for path in paths]
    maps = ConfigMaps.read([d for d in documents if d is not service], ())
    own, secrets, notes = read_variables(model, maps)
    environment = {**_protocol_variables(str(model.get("protocolVersion") or "v1")), **own}
    words = [str(w) for key in ("command", "args") for w in model.get(key) or ()]
    words = [expand_references(word, environment) for word in words]
    command = find_command(words, environment)
    if command is None:
        # Arguments are appended to those of the runtime; another command replaces them.
        command = Command((*ARGUMENTS, *words) if not model.get("command") else ())
    environment |= command.variables
    place = posixpath.normpath(config_path(command.options, environment) or _DEFAULT_CONFIG)
    text = mounted_file(predictor, model, maps, place)
    sources = tuple(paths)
    if text is None:
        file = _stored_file(place, folders, paths[0], model, environment)
        text, sources = read_bytes_as_text(file), (*paths, file)
    if environment.get("PROTOCOL_VERSION", "").startswith("grpc"):
        notes.append(
            f"the protocol is {environment['PROTOCOL_VERSION']}: servetune measures requests over "
            "HTTP only, and refuses to tune a deployment for gRPC alone"
        )
    return PlatformFiles(
        "kserve",
        text,
        environment,
        command.options,
        read_limits(model.get("resources") or {}),
        secrets,
        sources,
        tuple(notes),
    )


def _protocol_variables(protocol: str) -> dict[str, str]:
    """Return the variables that the platform sets for a version of its protocol."""
    version = protocol.removeprefix("grpc-")
    variables = {"TS_SERVICE_ENVELOPE": ENVELOPES.get(version, "kserve")}
    return variables | ({"PROTOCOL_VERSION": protocol} if version != protocol else {})


def _stored_file(
    place: str,
    folders: Sequence[Path],
    path: Path,
    model: Mapping[str, Any],
    environment: Mapping[str, str],
) -> Path:
    """Return the config.properties in the storage, which the container has at a place."""
    if not PurePosixPath(place).is_relative_to(_MOUNT):
        raise ConfigError(
            f"{path}: TorchServe reads {place}, which neither the storage nor a ConfigMap in these "
            f"files provides; it is {config_source(environment)}"
        )
    name = PurePosixPath(place).relative_to(_MOUNT)
    found = [folder / name for folder in folders if is_file(folder / name)]
    if not found:
        raise ConfigError(
            f"{folders[0] / name} does not exist; copy the folder {name.parent} of "
            f"{model.get('storageUri', 'the storageUri')} beside {path.name}"
        )
    return found[0]
