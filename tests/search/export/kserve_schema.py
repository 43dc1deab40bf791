"""Make search/export/schemas/inference_service.json of KServe's SDK and Kubernetes' schemas.

The SDK (the package `kserve`, Apache-2.0) has the fields of KServe's resources and their types;
those of Kubernetes' own are in the package `kubernetes-validate`.

    python -m tests.search.export.kserve_schema kserve-0.21.0-py3-none-any.whl
"""

from __future__ import annotations

import ast
import importlib.resources
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

from search.export.schema_check import INFERENCE_SERVICE_SCHEMA

KUBERNETES = "1.36.0"
_ROOT = "V1beta1InferenceService"
_SIMPLE = {"str": "string", "int": "integer", "bool": "boolean", "float": "number"}
_MAP, _LIST = re.compile(r"dict\(str, (.*)\)"), re.compile(r"list\[(.*)\]")
_REQUIRED = re.compile(r"Invalid value for `(\w+)`, must not be `None`")
#: Constraints in the markers of KServe's types and its admission webhook, which the SDK lacks.
_CONSTRAINTS: dict[str, dict[str, Any]] = {
    "scaleMetric": {"enum": ["cpu", "memory", "concurrency", "rps"]},
    "scaleMetricType": {"enum": ["Utilization", "Value", "AverageValue"]},
    "minReplicas": {"minimum": 0},
    "maxReplicas": {"minimum": 0},
    "containerConcurrency": {"minimum": 0},
    "canaryTrafficPercent": {"minimum": 0, "maximum": 100},
    "trafficPercent": {"minimum": 0, "maximum": 100},
}
_REQUIRED_TOO = {"V1beta1ModelFormat": ["name"], "V1beta1AuthenticationRef": ["name"]}
_NAME = {"pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
#: Written by KServe, not by the user.
_WITHOUT = {_ROOT: {"status"}}
_FREE = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


class _Schema:
    def __init__(self, models: dict[str, ast.ClassDef], kubernetes: dict[str, Any]) -> None:
        self.models = models
        self.kubernetes = kubernetes
        self.definitions: dict[str, Any] = {}

    def reference(self, name: str) -> dict[str, Any]:
        """Return the schema of a type of the SDK; its definition is added."""
        if name in _SIMPLE:
            return {"type": _SIMPLE[name]}
        if name == "object":
            return dict(_FREE)
        if found := _MAP.fullmatch(name):
            return {"type": "object", "additionalProperties": self.reference(found[1])}
        if found := _LIST.fullmatch(name):
            return {"type": "array", "items": self.reference(found[1])}
        if name not in self.models:
            return self._kubernetes_reference(name)
        if name not in self.definitions:
            self.definitions[name] = {}
            self.definitions[name] = self._definition(name)
        return {"$ref": f"#/definitions/{name}"}

    def _definition(self, name: str) -> dict[str, Any]:
        model = self.models[name]
        types, keys = _table(model, "openapi_types"), _table(model, "attribute_map")
        properties = {
            keys[attribute]: self.reference(kind) | _CONSTRAINTS.get(keys[attribute], {})
            for attribute, kind in types.items()
            if keys[attribute] not in _WITHOUT.get(name, ())
        }
        required = sorted(
            {*_REQUIRED_TOO.get(name, ())}
            | {keys[attribute] for attribute in _REQUIRED.findall(ast.unparse(model))}
        )
        definition = {"type": "object", "properties": properties, "additionalProperties": False}
        return definition | ({"required": required} if required else {})

    def _kubernetes_reference(self, name: str) -> dict[str, Any]:
        path = _kubernetes_name(name, self.kubernetes)
        if path not in self.definitions:
            self.definitions[path] = {}
            self.definitions[path] = self._copied(self.kubernetes[path])
        return {"$ref": f"#/definitions/{path}"}

    def _copied(self, value: Any) -> Any:
        """Return a schema of Kubernetes without its descriptions; what it names is added."""
        if isinstance(value, list):
            return [self._copied(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            path = value["$ref"].rsplit("/", 1)[-1]
            if path not in self.definitions:
                self.definitions[path] = {}
                self.definitions[path] = self._copied(self.kubernetes[path])
            return {"$ref": f"#/definitions/{path}"}
        return {
            key: self._copied(item)
            for key, item in value.items()
            if not (key == "description" and isinstance(item, str))
            and not key.startswith("x-kubernetes")
        }


def inference_service_schema(wheel: Path) -> dict[str, Any]:
    """Return the JSON schema of an InferenceService."""
    models: dict[str, ast.ClassDef] = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("kserve/models/v1"):
                tree = ast.parse(archive.read(name))
                models |= {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    folder = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema"
    text = (folder / f"v{KUBERNETES}-local-strict" / "_definitions.json").read_text()
    schema = _Schema(models, json.loads(text)["$defs"])
    schema.reference(_ROOT)
    root = schema.definitions[_ROOT]
    root["required"] = ["apiVersion", "kind", "metadata", "spec"]
    root["properties"]["apiVersion"] = {"const": "serving.kserve.io/v1beta1"}
    root["properties"]["kind"] = {"const": "InferenceService"}
    metadata = root["properties"]["metadata"]
    named = {"properties": {"name": {"type": "string", **_NAME}}, "required": ["name"]}
    root["properties"]["metadata"] = {"allOf": [metadata, named]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": (
            f"Made by tests/search/export/kserve_schema.py of {wheel.name} (KServe, Apache-2.0) "
            f"and of the schemas of Kubernetes {KUBERNETES} (Apache-2.0), without descriptions."
        ),
        "$ref": f"#/definitions/{_ROOT}",
        "definitions": dict(sorted(schema.definitions.items())),
    }


def _table(model: ast.ClassDef, name: str) -> dict[str, str]:
    for node in model.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return dict(ast.literal_eval(node.value))
    raise LookupError(f"{model.name} has no {name}")


def _kubernetes_name(name: str, definitions: dict[str, Any]) -> str:
    """Return the name of a type of Kubernetes: V1Container is io.k8s.api.core.v1.Container."""
    group = re.fullmatch(r"K8sIoApi([A-Z][a-z]+)(V\d+)(.*)", name)
    found = group or re.fullmatch(r"()(V\d+(?:(?:alpha|beta)\d+)?)(.*)", name)
    if name in ("ResourceQuantity", "V1beta1MetricQuantity"):
        return "io.k8s.apimachinery.pkg.api.resource.Quantity"
    if found is None:
        raise LookupError(f"unknown type {name}")
    ending = f".{found[2].lower()}.{found[3]}"
    groups = [found[1].lower()] if found[1] else ["core", "meta", "autoscaling", "apps"]
    paths = [path for path in definitions if path.endswith(ending)]
    for wanted in groups:
        for path in paths:
            if f".{wanted}." in path:
                return path
    raise LookupError(f"Kubernetes has no type {name}")


if __name__ == "__main__":
    text = json.dumps(inference_service_schema(Path(sys.argv[1])), separators=(",", ":"))
    INFERENCE_SERVICE_SCHEMA.write_text(text + "\n")
