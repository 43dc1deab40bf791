"""Export as Kubernetes manifests, as a Kustomize base."""

from __future__ import annotations

import base64
import math
from typing import Any

import javaproperties

from search.answer.scaling import POD_METRIC
from search.export.common import (
    ExportRequest,
    FormatFiles,
    fill_template,
    write_archives_if_one_overrides,
    write_yaml,
)
from search.export.container import HOME, TORCHSERVE_COMMAND, container_notes
from serving.exported import MODEL_STORE
from serving.production import inference_port, listen_everywhere
from serving.server import LOG_CONFIG

_START_LIMIT_S = 600
_PROBE_S = 5


def write_kubernetes(request: ExportRequest) -> FormatFiles:
    """Write ConfigMap, Deployment, Service, PodDisruptionBudget and HorizontalPodAutoscaler."""
    text = listen_everywhere(request.target.properties_text(request.config, request.archive))
    properties = javaproperties.loads(text)
    note = write_archives_if_one_overrides(request)
    name, image = request.resource_name, request.container_image
    port = inference_port(properties)
    labels = {"app.kubernetes.io/name": "torchserve", "app.kubernetes.io/instance": name}
    metadata = {"name": name, "labels": labels}
    manifests = {
        "configmap.yaml": _config_map(metadata, text),
        "deployment.yaml": _deployment(request, metadata, image, port),
        "service.yaml": {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "selector": labels,
                "ports": [{"name": "http", "port": port, "targetPort": "http"}],
            },
        },
        "poddisruptionbudget.yaml": {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata,
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels}},
        },
        "horizontalpodautoscaler.yaml": _autoscaler(request, metadata),
    }
    for file, manifest in manifests.items():
        write_yaml(request.folder / file, manifest)
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(manifests),
    }
    write_yaml(request.folder / "kustomization.yaml", kustomization)
    return FormatFiles(
        text,
        command="kubectl apply -k .",
        environment_use="`deployment.yaml` has the same variables.",
        key_file_place=f"in the pod ({HOME}/key_file.json)",
        readme_items=fill_template(
            "readme_kubernetes",
            name=name,
            archives=" and ".join(
                f"`{MODEL_STORE}/{each.path.name}`" if note else f"`{each.path.name}`"
                for each in request.archives
            ),
            target_rps=f"{request.scaling.target_rps:.3g}",
            headroom=f"{100 * request.scaling.headroom:.0f}",
            metric=POD_METRIC,
            resources="the limits of the trial"
            if request.resources.are_limits
            else "estimates: the trial's cores, and 1.5 times its peak memory",
        ),
        notes=(*([note] if note else []), *container_notes(image, properties)),
    )


def _config_map(metadata: dict[str, Any], text: str) -> dict[str, Any]:
    data: dict[str, Any] = {"data": {"log4j2.xml": LOG_CONFIG.read_text()}}
    if text.isascii():
        data["data"]["config.properties"] = text
    else:  # YAML is Unicode; Java reads each byte as one character.
        encoded = base64.b64encode(text.encode("latin-1")).decode()
        data["binaryData"] = {"config.properties": encoded}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **data}


def _deployment(
    request: ExportRequest, metadata: dict[str, Any], image: str, port: int
) -> dict[str, Any]:
    name, labels = metadata["name"], metadata["labels"]
    probe = {"httpGet": {"path": "/ping", "port": "http"}, "periodSeconds": _PROBE_S}
    container = {
        "name": "torchserve",
        "image": image,
        "command": list(TORCHSERVE_COMMAND),
        "env": [{"name": n, "value": text} for n, text in request.environment.items()],
        "ports": [{"name": "http", "containerPort": port}],
        "startupProbe": {**probe, "failureThreshold": math.ceil(_START_LIMIT_S / _PROBE_S)},
        "readinessProbe": {**probe, "failureThreshold": 2},
        "livenessProbe": {**probe, "failureThreshold": 6},
        "resources": request.resources.kubernetes(),
        "volumeMounts": [
            *(
                {"name": "config", "mountPath": f"{HOME}/{file}", "subPath": file}
                for file in ("config.properties", "log4j2.xml")
            ),
            {"name": MODEL_STORE, "mountPath": f"{HOME}/{MODEL_STORE}", "readOnly": True},
        ],
    }
    claim = {"claimName": f"{name}-{MODEL_STORE}", "readOnly": True}
    pod = {
        "terminationGracePeriodSeconds": 60,
        "containers": [container],
        "volumes": [
            {"name": "config", "configMap": {"name": name}},
            {"name": MODEL_STORE, "persistentVolumeClaim": claim},
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": request.scaling.least_replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _autoscaler(request: ExportRequest, metadata: dict[str, Any]) -> dict[str, Any]:
    scaling = request.scaling
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata,
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": metadata["name"],
            },
            "minReplicas": scaling.least_replicas,
            "maxReplicas": scaling.most_replicas,
            "metrics": [scaling.pod_target],
        },
    }
