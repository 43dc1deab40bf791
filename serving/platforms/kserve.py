"""KServe: an InferenceService, with the folder that its storageUri names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from serving.errors import ConfigError
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

#: Below the folder that storageUri names. Source: the runtime kserve-torchserve.
CONFIG_FILE = Path("config", "config.properties")
MODEL_STORE = "model-store"
#: The envelope that the platform sets for each version of its protocol.
ENVELOPES = {"v1": "kserve", "v2": "kservev2"}
_MOUNT = "/mnt/models"
ARGUMENTS = (
    "--start",
    f"--model-store={_MOUNT}/{MODEL_STORE}",
    f"--ts-config={_MOUNT}/{CONFIG_FILE}",
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
    """Read an InferenceService, and config/config.properties in its storage.

    Args:
        paths: the YAML files.
        storage: the folder that storageUri names; the folder of the files if None.

    Raises:
        ConfigError: there is not exactly one InferenceService with a PyTorch model, or its
            config.properties is missing.
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
    found = [folder / CONFIG_FILE for folder in folders if is_file(folder / CONFIG_FILE)]
    if not found:
        raise ConfigError(
            f"{folders[0] / CONFIG_FILE} does not exist; copy the folder {CONFIG_FILE.parent} of "
            f"{model.get('storageUri', 'the storageUri')} beside {paths[0].name}"
        )
    protocol = str(model.get("protocolVersion", "v1"))
    environment, secrets = {"TS_SERVICE_ENVELOPE": ENVELOPES.get(protocol, "kserve")}, []
    for entry in model.get("env") or ():
        if "valueFrom" in entry:
            secrets.append(entry["name"])
        else:
            text = str(entry.get("value", ""))
            environment[entry["name"]] = expand_references(text, environment)
    place = config_path((), environment) or f"{_MOUNT}/{CONFIG_FILE}"
    if place != f"{_MOUNT}/{CONFIG_FILE}":
        raise ConfigError(
            f"{paths[0]}: TorchServe reads {place} and not {CONFIG_FILE} of the storage; "
            f"it is {config_source(environment)}: remove the variable"
        )
    return PlatformFiles(
        "kserve",
        read_bytes_as_text(found[0]),
        environment,
        ARGUMENTS,
        read_limits(model.get("resources") or {}),
        tuple(secrets),
        (*paths, found[0]),
    )
