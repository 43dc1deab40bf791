"""Kubernetes: a Deployment (or StatefulSet, DaemonSet, Pod) with its ConfigMaps."""

from __future__ import annotations

import base64
import binascii
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from serving.environment import parse_environment
from serving.errors import ConfigError
from serving.platforms.command import Command, find_command
from serving.platforms.files import (
    DEFAULT_CONFIG,
    PlatformFiles,
    command_notes,
    config_path,
    config_place,
    config_source,
    expand_references,
    one,
    read_bytes_as_text,
    read_documents,
    read_limits,
    read_text,
)

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Pod")


def is_workload(documents: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the documents have a workload."""
    return any(document.get("kind") in WORKLOADS for document in documents)


@dataclass(frozen=True)
class ConfigMaps:
    """The data of each ConfigMap by its name; each byte of binary data is one character."""

    data: Mapping[str, Mapping[str, str]]

    @classmethod
    def read(
        cls, documents: Sequence[Mapping[str, Any]], kustomizations: Sequence[tuple[Path, Any]]
    ) -> ConfigMaps:
        data: dict[str, dict[str, str]] = {}
        for document in documents:
            if document.get("kind") == "ConfigMap":
                name = str((document.get("metadata") or {}).get("name"))
                texts = {k: _as_bytes(str(v)) for k, v in (document.get("data") or {}).items()}
                data[name] = {**texts, **_decode(document.get("binaryData") or {}, name)}
        for folder, kustomization in kustomizations:
            for generator in kustomization.get("configMapGenerator") or ():
                entries = data.setdefault(str(generator.get("name")), {})
                for entry in generator.get("files") or ():
                    key, equals, file = str(entry).partition("=")
                    file = file if equals else key
                    key = key if equals else PurePosixPath(file).name
                    entries[key] = read_bytes_as_text(folder / file)
                for literal in generator.get("literals") or ():
                    key, _, text = str(literal).partition("=")
                    entries[key] = _as_bytes(text)
                for file in (*(generator.get("envs") or ()), generator.get("env")):
                    if file:
                        entries.update(parse_environment(read_text(folder / file)))
        return cls(data)

    def get(self, name: str) -> Mapping[str, str] | None:
        return self.data.get(name)


def _as_bytes(text: str) -> str:
    return text.encode().decode("latin-1")


def _decode(binary: Mapping[str, str], name: str) -> dict[str, str]:
    try:
        return {k: base64.b64decode(v, validate=True).decode("latin-1") for k, v in binary.items()}
    except (binascii.Error, ValueError, TypeError) as error:
        raise ConfigError(f"ConfigMap {name} has binaryData that is not base64: {error}") from None


def read_kubernetes(paths: Sequence[Path]) -> PlatformFiles:
    """Read the manifests in these YAML files.

    Raises:
        ConfigError: there is not exactly one container that may run TorchServe, or a file that it
            needs is missing.
    """
    documents, kustomizations = [], []
    for path in paths:
        for document in read_documents(path):
            if path.name.startswith("kustomization") or document.get("kind") == "Kustomization":
                kustomizations.append((path.parent, document))
            else:
                documents.append(document)
    workloads = [document for document in documents if document.get("kind") in WORKLOADS]
    workload = one(workloads, f"workloads ({', '.join(WORKLOADS)})", paths[0])
    spec = workload.get("spec") or {}
    if workload["kind"] != "Pod":
        spec = (spec.get("template") or {}).get("spec") or {}
    container = _container(spec.get("containers") or [], paths[0])
    namespace = _namespace(workload)
    maps = ConfigMaps.read(
        [d for d in documents if not namespace or _namespace(d) in (namespace, None)],
        kustomizations,
    )
    environment, secrets, notes = read_variables(container, maps)
    words = _words(container, environment)
    found = find_command(words, environment)
    command = found or Command(())
    environment, options = {**environment, **command.variables}, command.options
    folder = str(container.get("workingDir") or PurePosixPath(DEFAULT_CONFIG).parent)
    place = config_place(found, environment, folder)
    notes += command_notes(found, words, place)
    properties = mounted_file(spec, container, maps, place)
    if properties is None and config_path(options, environment) is not None:
        raise ConfigError(
            f"{paths[0]}: the container reads {place}, which no ConfigMap in these files provides; "
            f"it is {config_source(environment)}: pass the file with the ConfigMap too"
        )
    if properties is None:
        notes.append("no config.properties in a ConfigMap: the image has its own")
    return PlatformFiles(
        "kubernetes",
        properties if properties is not None else "",
        environment,
        options,
        read_limits(container.get("resources") or {}),
        secrets,
        tuple(paths),
        tuple(notes),
    )


def _namespace(document: Mapping[str, Any]) -> str | None:
    name = (document.get("metadata") or {}).get("namespace")
    return None if name is None else str(name)


def _words(container: Mapping[str, Any], environment: Mapping[str, str]) -> list[str]:
    words = [*(container.get("command") or ()), *(container.get("args") or ())]
    return [expand_references(str(word), environment) for word in words]


def _container(containers: Sequence[Mapping[str, Any]], path: Path) -> Mapping[str, Any]:
    def may_run_torchserve(container: Mapping[str, Any]) -> bool:
        is_named = "torchserve" in str(container.get("image", ""))
        return is_named or find_command(_words(container, {}), {}) is not None

    found = [c for c in containers if may_run_torchserve(c)] if len(containers) > 1 else containers
    container: Mapping[str, Any] = one(found, "containers that run torchserve", path)
    return container


def read_variables(
    container: Mapping[str, Any], maps: ConfigMaps
) -> tuple[dict[str, str], tuple[str, ...], list[str]]:
    """Return the variables, the names of those that are secrets, and notes."""
    variables: dict[str, str] = {}
    secrets, notes = [], []
    for source in container.get("envFrom") or ():
        prefix = source.get("prefix") or ""
        if "configMapRef" in source:
            name = source["configMapRef"].get("name")
            entries = maps.get(name)
            if entries is None:
                notes.append(f"ConfigMap {name} is not in these files: its variables are missing")
            variables |= {f"{prefix}{key}": text for key, text in (entries or {}).items()}
        else:
            name = (source.get("secretRef") or {}).get("name")
            notes.append(f"the variables of Secret {name} are not in these files")
    for entry in container.get("env") or ():
        name, source, value = entry["name"], entry.get("valueFrom"), entry.get("value")
        if source is None:
            variables[name] = expand_references("" if value is None else str(value), variables)
        elif reference := source.get("configMapKeyRef"):
            text = (maps.get(reference.get("name")) or {}).get(reference.get("key"))
            if text is None:
                notes.append(f"variable {name}: its ConfigMap is not in these files")
            else:
                variables[name] = text
        elif "secretKeyRef" in source:
            secrets.append(name)
        else:
            notes.append(f"variable {name} is known only in the cluster")
    return variables, tuple(secrets), notes


def mounted_file(
    spec: Mapping[str, Any], container: Mapping[str, Any], maps: ConfigMaps, place: str
) -> str | None:
    """Return the text that a ConfigMap provides at a path in the container; None for none."""
    # A mount hides what one at a shorter path has there.
    mounts = sorted(_mounts(spec, container), key=lambda m: -len(PurePosixPath(m[0]).parts))
    for mount_path, name, items in mounts:
        entries = maps.get(name)
        files = items or {key: key for key in entries or ()}
        for key, file in files.items():
            path = mount_path if file is None else str(PurePosixPath(mount_path, file))
            if (
                posixpath.normpath(path) == posixpath.normpath(place)
                and entries is not None
                and key in entries
            ):
                return entries[key]
    return None


def _mounts(
    spec: Mapping[str, Any], container: Mapping[str, Any]
) -> Iterator[tuple[str, str, dict[str, str | None]]]:
    """Yield each mounted ConfigMap: its path, its name, and the files in it by key."""
    volumes = {volume.get("name"): volume for volume in spec.get("volumes") or ()}
    for mount in container.get("volumeMounts") or ():
        volume = volumes.get(mount.get("name")) or {}
        sources = [volume, *((volume.get("projected") or {}).get("sources") or ())]
        for source in sources:
            reference = source.get("configMap")
            if not reference:
                continue
            items = {i["key"]: i.get("path", i["key"]) for i in reference.get("items") or ()}
            name = str(reference.get("name"))
            if sub_path := mount.get("subPath"):
                keys = [key for key, path in items.items() if path == sub_path] or [sub_path]
                yield mount["mountPath"], name, {keys[0]: None}
            else:
                yield mount["mountPath"], name, items
