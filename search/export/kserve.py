"""Export for KServe: the folder that storageUri names, and an InferenceService."""

from __future__ import annotations

import json
from typing import Any

from search.export.common import (
    ExportRequest,
    FormatFiles,
    fill_template,
    write_archives_if_one_overrides,
    write_yaml,
)
from search.export.container import kubernetes_environment
from serving.configuration.config import ServerConfig
from serving.configuration.editing import edit_properties
from serving.platforms.kserve import CONFIG_FILE, ENVELOPES, MODEL_STORE, prediction_path

#: Source: the runtime kserve-torchserve and KServe's own examples.
_PROPERTIES = {
    "inference_address": "http://0.0.0.0:8085",
    "management_address": "http://0.0.0.0:8085",
    "metrics_address": "http://0.0.0.0:8082",
    "grpc_inference_port": "7070",
    "grpc_management_port": "7071",
    "enable_envvars_config": "true",
    "enable_metrics_api": "true",
    "metrics_mode": "prometheus",
    "model_store": f"/mnt/models/{MODEL_STORE}",
}
_ENVELOPE = "service_envelope"
_CANARY_PERCENT = 10
#: Knative refuses more, unless its operator has raised `container-concurrency-max-limit`.
_MAX_CONCURRENCY = 1000
#: Knative adds a pod at this share of the target, 70 % by default; the target has its own headroom.
_WHOLE_TARGET = {"autoscaling.knative.dev/target-utilization-percentage": "100"}
#: TorchServe in the image pytorch/torchserve-kfs of the runtime kserve-torchserve.
_IMAGE_VERSION = "0.9.0"
#: Variables that KServe's admission refuses.
_BLOCKED = ("PYTHONPATH",)


def write_kserve(request: ExportRequest) -> FormatFiles:
    """Write config/config.properties with a model_snapshot, and the InferenceService."""
    config = request.explicit_config
    envelope = config.properties.get(_ENVELOPE)
    protocol = next((v for v, name in ENVELOPES.items() if name == envelope), "v1")
    note = write_archives_if_one_overrides(request)
    (request.folder / CONFIG_FILE.parent).mkdir()
    write_yaml(request.folder / "inference-service.yaml", _service(request, config, protocol))
    notes = [note] if note else []
    if envelope not in ENVELOPES.values():
        notes.append(
            f"KServe sets the envelope {ENVELOPES[protocol]}, without which the configuration was "
            f'measured: requests are sent as {{"instances": […]}} to '
            f"{prediction_path(request.archive.name, ENVELOPES[protocol])}, and the handler gets "
            f"each instance; "
            f"measure with properties.service_envelope: {ENVELOPES[protocol]} to be sure"
        )
    if (version := request.target.version.number) != _IMAGE_VERSION:
        notes.append(
            f"KServe's image has TorchServe {_IMAGE_VERSION}, and the configuration was measured "
            f"with {version}: measure with the image's version through serving.python"
        )
    if blocked := [name for name in _BLOCKED if name in request.environment]:
        notes.append(
            f"KServe 0.18 and later refuse the variable {blocked[0]}; install the modules "
            "in the image, or in the archive"
        )
    if (request.scaling.capacity or 0) > _MAX_CONCURRENCY:
        notes.append(
            f"a pod holds {request.scaling.capacity} requests, and Knative permits a "
            f"containerConcurrency of at most {_MAX_CONCURRENCY}"
        )
    notes.append(
        "KServe's own server stands before TorchServe in the pod, and may be the limit: the rate "
        "is TorchServe's"
    )
    return FormatFiles(
        _properties_text(request, config),
        command="kubectl apply -f inference-service.yaml",
        properties_path=str(CONFIG_FILE),
        has_environment=False,
        use=fill_template(
            "readme_kserve",
            archives=", ".join(f"`{each.path.name}`" for each in request.archives),
            model_store=MODEL_STORE,
            protocol=protocol,
            paths=" and ".join(
                f"`{prediction_path(each.name, ENVELOPES[protocol])}`" for each in request.archives
            ),
            concurrency=str(request.scaling.concurrency),
            target_rps=f"{request.scaling.target_rps:.3g}",
            canary=str(_CANARY_PERCENT),
            resources=request.resources.origin,
        ),
        notes=tuple(notes),
    )


def _properties_text(request: ExportRequest, config: ServerConfig) -> str:
    archive, target = request.archive, request.target
    if target.base is not None:
        return target.properties_text(config, archive)
    lines = {k: v for k, v in config.lines(archive).items() if k not in ("models", _ENVELOPE)}
    models = {}
    for model in request.archives:
        settings = config if model is archive else config.of_model(model.name)
        entry = {"defaultVersion": True, "marName": model.path.name, **settings.model_entry()}
        models[model.name] = {model.version: entry}
    snapshot = {"name": "startup.cfg", "modelCount": len(models), "models": models}
    lines["model_snapshot"] = json.dumps(snapshot, separators=(",", ":"))
    return edit_properties("", {**_PROPERTIES, **target.given, **lines})


def _service(request: ExportRequest, config: ServerConfig, protocol: str) -> dict[str, Any]:
    scaling, name = request.scaling, request.resource_name
    limit = min(scaling.capacity or 0, _MAX_CONCURRENCY)
    model: dict[str, Any] = {
        "modelFormat": {"name": "pytorch"},
        "protocolVersion": protocol,
        "storageUri": f"pvc://models/{name}",
        "resources": request.resources.kubernetes(),
    }
    environment = request.environment
    if environment:
        model["env"] = kubernetes_environment(environment)
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "annotations": _WHOLE_TARGET},
        "spec": {
            "predictor": {
                "minReplicas": scaling.least_replicas,
                "maxReplicas": scaling.most_replicas,
                "scaleMetric": "concurrency",
                "scaleTarget": min(scaling.concurrency, limit) if limit else scaling.concurrency,
                # 0: no limit.
                "containerConcurrency": limit,
                "canaryTrafficPercent": _CANARY_PERCENT,
                "model": model,
            }
        },
    }
