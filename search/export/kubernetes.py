"""Export as Kubernetes manifests, as a Kustomize base."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import javaproperties

from search.answer.scaling import POD_METRIC
from search.export.common import (
    ExportRequest,
    FormatFiles,
    fill_template,
    write_archives_if_one_overrides,
    write_yaml,
)
from search.export.container import (
    HOME,
    TORCHSERVE_COMMAND,
    container_notes,
    kubernetes_environment,
)
from serving.configuration.production import inference_port, listen_everywhere
from serving.exported import MODEL_STORE
from serving.server import LOG_CONFIG

_START_LIMIT_S = 600
_PROBE_S = 5
#: Time until every node has taken a pod that ends out of the Service.
_DRAIN_S = 5
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_CONFIG_MAP_FILE = "configmap.yaml"
_CONFIG_DIGEST = "servetune/config-sha256"


def write_kubernetes(request: ExportRequest) -> FormatFiles:
    """Write ConfigMap, Deployment, Service, PodDisruptionBudget and HorizontalPodAutoscaler."""
    text = listen_everywhere(request.target.properties_text(request.config, request.archive))
    properties = javaproperties.loads(text)
    note = write_archives_if_one_overrides(request)
    name, image = request.resource_name, request.container_image
    port = inference_port(properties)
    labels = {"app.kubernetes.io/name": "torchserve", "app.kubernetes.io/instance": name}
    metadata = {"name": name, "labels": labels}
    config_map = _config_map(metadata, text)
    manifests = {
        _CONFIG_MAP_FILE: config_map,
        "deployment.yaml": _deployment(request, metadata, config_map, properties),
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
        manifest=_CONFIG_MAP_FILE,
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
            resources=request.resources.origin,
            metrics=_metrics_text(properties),
        ),
        notes=(
            *([note] if note else []),
            *container_notes(image, properties),
            *_token_notes(request, properties),
        ),
    )


def _metrics_text(properties: Mapping[str, str]) -> str:
    """Return where the metrics can be scraped."""
    address = properties.get("metrics_address", "http://127.0.0.1:8082")
    if urlsplit(address).hostname in _LOOPBACK:
        return (
            "It listens on the\n  pod's loopback interface: scrape it with a sidecar, or export "
            "with `--set metrics_address=http://0.0.0.0:8082`."
        )
    return f"It is at {address} in the pod."


def _token_notes(request: ExportRequest, properties: Mapping[str, str]) -> tuple[str, ...]:
    is_off = properties.get("disable_token_authorization", "false").lower() == "true"
    if is_off or not request.target.version.requires_tokens:
        return ()
    return (
        "each pod generates its own tokens, and a client of the Service cannot know which pod "
        "answers: export with --set disable_token_authorization=true, and let a NetworkPolicy or "
        "a gateway decide who may send requests",
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
    request: ExportRequest,
    metadata: dict[str, Any],
    config_map: dict[str, Any],
    properties: Mapping[str, str],
) -> dict[str, Any]:
    name, labels = metadata["name"], metadata["labels"]
    scheme = urlsplit(properties["inference_address"]).scheme.upper()
    ping = {"path": "/ping", "port": "http", "scheme": scheme}
    probe = {"httpGet": ping, "periodSeconds": _PROBE_S, "timeoutSeconds": _PROBE_S}
    container = {
        "name": "torchserve",
        "image": request.container_image,
        "command": list(TORCHSERVE_COMMAND),
        "workingDir": HOME,
        "env": kubernetes_environment(request.environment),
        "ports": [{"name": "http", "containerPort": inference_port(properties)}],
        "startupProbe": {**probe, "failureThreshold": math.ceil(_START_LIMIT_S / _PROBE_S)},
        "readinessProbe": {**probe, "failureThreshold": 2},
        "livenessProbe": {**probe, "failureThreshold": 6},
        # The command, as process 1, ignores the signal that ends a pod: the server is stopped here,
        # once the pod gets no more requests.
        "lifecycle": {
            "preStop": {"exec": {"command": ["sh", "-c", f"sleep {_DRAIN_S}; torchserve --stop"]}}
        },
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
    digest = hashlib.sha256(json.dumps(config_map, sort_keys=True).encode()).hexdigest()
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
        # The autoscaler owns the number of replicas, which each `apply` would reset.
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                # Pods are replaced when the ConfigMap changes.
                "metadata": {"labels": labels, "annotations": {_CONFIG_DIGEST: digest}},
                "spec": pod,
            },
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
