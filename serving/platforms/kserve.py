"""KServe: an InferenceService with its runtime, and the folder that its storageUri names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from serving.errors import ConfigError
from serving.platforms.files import (
    PlatformFiles,
    config_source,
    is_file,
    one,
    read_bytes_as_text,
    read_limits,
)
from serving.platforms.kubernetes import (
    ConfigMaps,
    Start,
    in_namespace,
    read_resources,
    runs_torchserve,
)

KIND = "InferenceService"
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
_RUNTIMES = ("ServingRuntime", "ClusterServingRuntime")
#: The runtime that KServe installs for PyTorch. Source: config/runtimes in its repository.
_DEFAULT_RUNTIME = "kserve-torchserve"
_DEFAULT_CONTAINER: Mapping[str, Any] = {
    "args": ["torchserve", *ARGUMENTS],
    "env": [{"name": "TS_SERVICE_ENVELOPE", "value": "{{.Labels.serviceEnvelope}}"}],
    "resources": {"limits": {"cpu": "1", "memory": "2Gi"}},
}
_CONTAINER_NAME = "kserve-container"
_PYTORCH = "pytorch"
#: A reference to the metadata of the InferenceService.
_PLACEHOLDER = re.compile(r"\{\{\s*\.(?:(Labels|Annotations)\.)?(\w+)\s*\}\}")


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
    return any(document.get("kind") == KIND for document in documents)


def read_kserve(paths: Sequence[Path]) -> PlatformFiles:
    """Read an InferenceService, its runtime, and config.properties in its storage or a ConfigMap.

    The folder that storageUri names is that of the InferenceService's file.

    Args:
        paths: the YAML files.

    Raises:
        ConfigError: there is not exactly one InferenceService with a PyTorch model, or its
            config.properties is neither in its storage nor in a ConfigMap or Secret in the files.
    """
    found, kustomizations = read_resources(paths)
    services = [entry for entry in found if entry[1].get("kind") == KIND]
    path, service = one(services, "InferenceServices", paths[0])
    documents = in_namespace([document for _, document in found], service)
    predictor = (service.get("spec") or {}).get("predictor") or {}
    model = predictor.get("model") or predictor.get("pytorch")
    if not isinstance(model, dict):
        raise ConfigError(
            f"{path}: the InferenceService has no predictor.model of the format pytorch"
        )
    format_name = (model.get("modelFormat") or {}).get("name", _PYTORCH)
    runtime, notes = _runtime(documents, model, format_name, path)
    protocol = str(model.get("protocolVersion") or "v1")
    container = _filled_in(
        _merged(_runtime_container(runtime, path), model), service.get("metadata") or {}, protocol
    )
    volumes = _joined(runtime.get("volumes"), predictor.get("volumes"), "name")
    maps = ConfigMaps.read(documents, kustomizations)
    start = Start.read(container, volumes, maps, _protocol_variable(protocol), has_options=True)
    notes += start.notes
    environment, text = start.environment, start.text
    sources = tuple(dict.fromkeys(path for path, document in found if "kind" in document))
    if text is None and start.is_named:
        file = _stored_file(start.place, path, model, environment)
        text, sources = read_bytes_as_text(file), (*sources, file)
    if environment.get("PROTOCOL_VERSION", "").startswith("grpc"):
        notes.append(
            f"the protocol is {environment['PROTOCOL_VERSION']}: servetune measures requests over "
            "HTTP only, and refuses to tune a deployment for gRPC alone"
        )
    return PlatformFiles(
        "kserve",
        text or "",
        environment,
        start.options,
        read_limits(container.get("resources") or {}),
        start.secrets,
        sources,
        tuple(notes),
    )


def _runtime(
    documents: Sequence[Mapping[str, Any]], model: Mapping[str, Any], format_name: Any, path: Path
) -> tuple[Mapping[str, Any], list[str]]:
    """Return the `spec` of the runtime that KServe chooses for a model, and notes.

    Raises:
        ConfigError: the runtime does not run TorchServe.
    """
    name = model.get("runtime")
    # Those of a namespace come first.
    runtimes = [d for kind in _RUNTIMES for d in documents if d.get("kind") == kind]
    for runtime in runtimes:
        spec = runtime.get("spec") or {}
        runtime_name = (runtime.get("metadata") or {}).get("name")
        if runtime_name == name if name else _selects_itself(spec, format_name):
            container = _merged(_runtime_container(spec, path), model)
            may_run_torchserve = format_name == _PYTORCH and not container.get("command")
            if not may_run_torchserve and not runs_torchserve(container):
                raise ConfigError(f"{path}: the runtime {runtime_name} does not run torchserve")
            return spec, []
    if format_name != _PYTORCH:
        raise ConfigError(
            f"{path}: the model has the format {format_name}, which {_DEFAULT_RUNTIME} does not "
            "serve; if its runtime runs TorchServe, pass the runtime's file too"
        )
    notes = []
    if name not in (None, _DEFAULT_RUNTIME):
        notes.append(
            f"the runtime {name} is not in these files: it is read as {_DEFAULT_RUNTIME}, whose "
            "command, variables and limits may differ; pass its file too"
        )
    return {"containers": [_DEFAULT_CONTAINER]}, notes


def _selects_itself(spec: Mapping[str, Any], format_name: Any) -> bool:
    """Return whether KServe may choose a runtime for models that name none."""
    formats = spec.get("supportedModelFormats") or ()
    is_selected = any(f.get("name") == format_name and f.get("autoSelect") for f in formats)
    return is_selected and not spec.get("disabled")


def _runtime_container(spec: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    containers = spec.get("containers") or []
    if len(containers) > 1:
        containers = [c for c in containers if c.get("name") == _CONTAINER_NAME]
    container: Mapping[str, Any] = one(containers, f"containers {_CONTAINER_NAME}", path)
    return container


def _merged(runtime: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the container of a runtime with what the model changes.

    Source: MergeRuntimeContainers of KServe, a strategic merge patch that joins the arguments.
    """
    limits = [(c.get("resources") or {}).get("limits") or {} for c in (runtime, model)]
    return {
        **runtime,
        **{key: value for key, value in model.items() if value is not None},
        "args": [*(runtime.get("args") or ()), *(model.get("args") or ())],
        "env": _joined(runtime.get("env"), model.get("env"), "name"),
        "volumeMounts": _joined(
            runtime.get("volumeMounts"), model.get("volumeMounts"), "mountPath"
        ),
        "resources": {"limits": {**limits[0], **limits[1]}},
    }


def _joined(
    first: Sequence[Mapping[str, Any]] | None, second: Sequence[Mapping[str, Any]] | None, key: str
) -> list[Mapping[str, Any]]:
    """Return two lists joined; of entries with the same key, the second takes precedence."""
    return [*{entry[key]: entry for entry in (*(first or ()), *(second or ()))}.values()]


def _filled_in(
    container: Mapping[str, Any], metadata: Mapping[str, Any], protocol: str
) -> dict[str, Any]:
    """Return a container with the metadata of its InferenceService, which has KServe's label."""
    envelope = ENVELOPES.get(protocol.removeprefix("grpc-"), "kserve")
    labels = {**(metadata.get("labels") or {}), "serviceEnvelope": envelope}
    known = {
        **{("", key.title()): metadata[key] for key in ("name", "namespace") if key in metadata},
        **{("Labels", key): value for key, value in labels.items()},
        **{("Annotations", key): v for key, v in (metadata.get("annotations") or {}).items()},
    }

    def value(found: re.Match[str]) -> str:
        text = known.get((found[1] or "", found[2]), found[0])
        return json.dumps(str(text))[1:-1]

    filled_in: dict[str, Any] = json.loads(
        _PLACEHOLDER.sub(value, json.dumps(container, default=str))
    )
    return filled_in


def _protocol_variable(protocol: str) -> dict[str, str]:
    """Return the variable that KServe sets for gRPC."""
    return {"PROTOCOL_VERSION": protocol} if protocol.startswith("grpc-") else {}


def _stored_file(
    place: str, path: Path, model: Mapping[str, Any], environment: Mapping[str, str]
) -> Path:
    """Return the config.properties in the storage, which the container has at a place."""
    if not PurePosixPath(place).is_relative_to(_MOUNT):
        raise ConfigError(
            f"{path}: TorchServe reads {place}, which neither the storage nor a ConfigMap or "
            f"Secret in these files provides; it is {config_source(environment)}"
        )
    name = PurePosixPath(place).relative_to(_MOUNT)
    file = path.parent / name
    if not is_file(file):
        raise ConfigError(
            f"{file} does not exist; copy the folder {name.parent} of "
            f"{model.get('storageUri', 'the storageUri')} beside {path.name}"
        )
    return file
