"""Kubernetes: a Deployment (or StatefulSet, DaemonSet, Pod) with its ConfigMaps and Secrets."""

from __future__ import annotations

import base64
import binascii
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

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
    read_environment,
    read_limits,
    script_reader,
)

#: Names of the file that Kustomize reads in a folder.
KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
#: Entries of a kustomization that may change a workload or its ConfigMaps, or add some.
_CHANGES = (
    *("patches", "patchesStrategicMerge", "patchesJson6902", "components", "replacements", "vars"),
    *("transformers", "generators", "helmCharts", "helmChartInflationGenerator"),
)
#: The keys of texts and of base64, by kind.
_DATA_KEYS = {"ConfigMap": ("data", "binaryData"), "Secret": ("stringData", "data")}
#: A manifest or a kustomization, with the path of its file.
Entry = tuple[Path, Mapping[str, Any]]
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Pod")


def is_workload(documents: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the documents have a workload."""
    return any(document.get("kind") in WORKLOADS for document in documents)


@dataclass(frozen=True)
class ConfigMaps:
    """The data of each ConfigMap and Secret; each byte of binary data is one character.

    Attributes:
        data: the entries by kind and name.
    """

    data: Mapping[tuple[str, str], Mapping[str, str]]

    @classmethod
    def read(
        cls, documents: Sequence[Mapping[str, Any]], kustomizations: Sequence[Entry]
    ) -> ConfigMaps:
        """Return the data in manifests and kustomizations."""
        data: dict[tuple[str, str], dict[str, str]] = {}
        for document in documents:
            if (kind := str(document.get("kind"))) in _DATA_KEYS:
                name = str((document.get("metadata") or {}).get("name"))
                texts, binary = (document.get(key) or {} for key in _DATA_KEYS[kind])
                data[kind, name] = {
                    **_decode(binary, f"{kind} {name}"),
                    **{key: _as_bytes(str(text)) for key, text in texts.items()},
                }
        for path, kustomization in kustomizations:
            folder = path.parent
            for kind, generator in _generators(kustomization):
                entries = data.setdefault((kind, str(generator.get("name"))), {})
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
                        variables = read_environment(folder / file)
                        entries |= {key: _as_bytes(text) for key, text in variables.items()}
        return cls(data)

    def get(self, name: str, kind: str = "ConfigMap") -> Mapping[str, str] | None:
        return self.data.get((kind, name))


def _generators(kustomization: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for kind, key in (("ConfigMap", "configMapGenerator"), ("Secret", "secretGenerator")):
        for generator in kustomization.get(key) or ():
            yield kind, generator


def _as_bytes(text: str) -> str:
    return text.encode().decode("latin-1")


def _as_text(data: str) -> str:
    """Return the text of data of which each byte is one character."""
    return data.encode("latin-1").decode(errors="replace")


def _decode(binary: Mapping[str, str], source: str) -> dict[str, str]:
    try:
        return {k: base64.b64decode(v, validate=True).decode("latin-1") for k, v in binary.items()}
    except (binascii.Error, ValueError, TypeError) as error:
        raise ConfigError(f"{source} has data that is not base64: {error}") from None


def read_resources(paths: Sequence[Path]) -> tuple[list[Entry], list[Entry]]:
    """Return the manifests and the kustomizations in YAML files.

    Raises:
        ConfigError: a kustomization changes its manifests, or has others than those in the files,
            or several have the same.
    """
    manifests: list[Entry] = []
    kustomizations: list[Entry] = []
    for path in paths:
        for document in read_documents(path):
            is_kustomization = (
                path.name in KUSTOMIZATIONS or document.get("kind") == "Kustomization"
            )
            (kustomizations if is_kustomization else manifests).append((path, document))
    files = [Path(os.path.normpath(path)) for path in paths]
    users: dict[Path, Path] = {}
    for path, kustomization in kustomizations:
        unread = [key for key in _CHANGES if kustomization.get(key)]
        for key in ("resources", "bases"):
            for entry in kustomization.get(key) or ():
                target = Path(os.path.normpath(path.parent / str(entry)))
                if not any(target == file or target in file.parents for file in files):
                    unread.append(f"{key}: {entry}")
                if (user := users.setdefault(target, path)) != path:
                    raise ConfigError(
                        f"{user} and {path} both change {target}; run `kubectl kustomize FOLDER > "
                        "all.yaml` with the folder of one, and pass all.yaml"
                    )
        if unread:
            raise ConfigError(
                f"{path} has {', '.join(unread)}, which servetune does not apply; run "
                f"`kubectl kustomize {path.parent} > all.yaml`, and pass all.yaml"
            )
    return manifests, kustomizations


def read_kubernetes(paths: Sequence[Path]) -> PlatformFiles:
    """Read the manifests in these YAML files.

    Raises:
        ConfigError: there is not exactly one container that may run TorchServe, or a file that it
            needs is missing.
    """
    found, kustomizations = read_resources(paths)
    documents = [document for _, document in found]
    workload = _workload(documents, paths[0])
    spec = _pod_spec(workload)
    container = _container(spec.get("containers") or [], paths[0])
    maps = ConfigMaps.read(in_namespace(documents, workload), kustomizations)
    start = Start.read(container, spec.get("volumes") or (), maps)
    if start.text is None and start.is_named:
        source = f" ({start.volume} is mounted there)" if start.volume else ""
        raise ConfigError(
            f"{paths[0]}: the container reads {start.place}, which no ConfigMap or Secret in these "
            f"files provides{source}; it is {config_source(start.environment)}: pass the file with "
            "it too"
        )
    return PlatformFiles(
        "kubernetes",
        start.text or "",
        start.environment,
        start.options,
        read_limits(container.get("resources") or {}),
        start.secrets,
        tuple(paths),
        start.notes,
    )


@dataclass(frozen=True)
class Start:
    """How a container starts TorchServe, and its config.properties.

    Attributes:
        environment: the variables, those that the command sets included.
        secrets: the names of the variables whose values are secrets.
        options: those of the command `torchserve`.
        place: the path of the config.properties in the container.
        is_named: whether the command or a variable names the path.
        text: that of the config.properties; None if no ConfigMap or Secret in the files has it.
        volume: the one that is mounted at the path; None without one.
        notes: what is not known from the files, a sentence each.
    """

    environment: Mapping[str, str]
    secrets: tuple[str, ...]
    options: tuple[str, ...]
    place: str
    is_named: bool
    text: str | None
    volume: str | None
    notes: tuple[str, ...]

    @classmethod
    def read(
        cls,
        container: Mapping[str, Any],
        volumes: Sequence[Mapping[str, Any]],
        maps: ConfigMaps,
        defaults: Mapping[str, str] = MappingProxyType({}),
        has_options: bool = False,
    ) -> Start:
        """Read a container, and its config.properties in a ConfigMap or Secret.

        Args:
            defaults: variables that the platform sets unless the container does.
            has_options: whether arguments that name no command are options of `torchserve`.
        """
        own, secrets, notes = _read_variables(container, maps)
        environment = {**defaults, **own}
        words = _words(container, environment)
        folder = str(container.get("workingDir") or PurePosixPath(DEFAULT_CONFIG).parent)
        scripts = script_reader(
            folder, lambda place: _mounted_file(volumes, container, maps, place)[0]
        )
        found = find_command(words, environment, scripts)
        if found is None and has_options and not container.get("command"):
            found = Command(tuple(words))
        command = found or Command(())
        environment |= command.variables
        place = config_place(found, environment, folder)
        notes += command_notes(found, words, place)
        text, volume = _mounted_file(volumes, container, maps, place)
        is_named = config_path(command.options, environment) is not None
        if text is None and not is_named:
            notes.append(
                f"{place} is in {volume}, not in these files: its lines are missing"
                if volume
                else "no config.properties is mounted: the image has its own"
            )
        return cls(
            *(environment, secrets, command.options, place, is_named, text, volume, tuple(notes))
        )


def _workload(documents: Sequence[Mapping[str, Any]], path: Path) -> Mapping[str, Any]:
    what = f"workloads ({', '.join(WORKLOADS)})"
    found = [d for d in documents if d.get("kind") in WORKLOADS and not _is_hook(d)]
    if len(found) > 1:
        what += " that run torchserve"
        found = [
            d for d in found if any(map(runs_torchserve, _pod_spec(d).get("containers") or ()))
        ]
    workload: Mapping[str, Any] = one(found, what, path)
    return workload


def _is_hook(workload: Mapping[str, Any]) -> bool:
    """Return whether Helm runs a workload for a while only, such as a test."""
    return "helm.sh/hook" in ((workload.get("metadata") or {}).get("annotations") or {})


def _pod_spec(workload: Mapping[str, Any]) -> Mapping[str, Any]:
    spec = workload.get("spec") or {}
    if workload["kind"] != "Pod":
        spec = (spec.get("template") or {}).get("spec") or {}
    pod_spec: Mapping[str, Any] = spec
    return pod_spec


def in_namespace(
    documents: Sequence[Mapping[str, Any]], user: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """Return the manifests that one of them can use: not those of other namespaces."""
    namespace = _namespace(user)
    return [d for d in documents if not namespace or _namespace(d) in (namespace, None)]


def _namespace(document: Mapping[str, Any]) -> str | None:
    name = (document.get("metadata") or {}).get("namespace")
    return None if name is None else str(name)


def _words(container: Mapping[str, Any], environment: Mapping[str, str]) -> list[str]:
    words = [*(container.get("command") or ()), *(container.get("args") or ())]
    return [expand_references(str(word), environment) for word in words]


def runs_torchserve(container: Mapping[str, Any]) -> bool:
    """Return whether the image or the command of a container is that of TorchServe."""
    is_named = "torchserve" in str(container.get("image", ""))
    return is_named or find_command(_words(container, {}), {}) is not None


def _container(containers: Sequence[Mapping[str, Any]], path: Path) -> Mapping[str, Any]:
    found = [c for c in containers if runs_torchserve(c)] if len(containers) > 1 else containers
    container: Mapping[str, Any] = one(found, "containers that run torchserve", path)
    return container


def _read_variables(
    container: Mapping[str, Any], maps: ConfigMaps
) -> tuple[dict[str, str], tuple[str, ...], list[str]]:
    """Return the variables, the names of those that are secrets, and notes."""
    variables: dict[str, str] = {}
    secrets: list[str] = []
    notes: list[str] = []
    for source in container.get("envFrom") or ():
        prefix = source.get("prefix") or ""
        if "configMapRef" in source:
            name = source["configMapRef"].get("name")
            entries = maps.get(name)
            if entries is None:
                notes.append(f"ConfigMap {name} is not in these files: its variables are missing")
            variables |= {f"{prefix}{key}": _as_text(d) for key, d in (entries or {}).items()}
        else:
            name = str((source.get("secretRef") or {}).get("name"))
            entries = maps.get(name, "Secret")
            secrets += [f"{prefix}{key}" for key in entries or ()]
            if entries is None:
                notes.append(f"the variables of Secret {name} are not in these files")
    own = container.get("env") or ()
    secrets = [name for name in secrets if name not in {entry["name"] for entry in own}]
    for entry in own:
        name, source, value = entry["name"], entry.get("valueFrom"), entry.get("value")
        if source is None:
            variables[name] = expand_references("" if value is None else str(value), variables)
        elif reference := source.get("configMapKeyRef"):
            text = (maps.get(reference.get("name")) or {}).get(reference.get("key"))
            if text is None:
                notes.append(f"variable {name}: its ConfigMap is not in these files")
            else:
                variables[name] = _as_text(text)
        elif "secretKeyRef" in source:
            variables.pop(name, None)
            secrets.append(name)
        else:
            notes.append(f"variable {name} is known only in the cluster")
    return variables, tuple(secrets), notes


def _mounted_file(
    volumes: Sequence[Mapping[str, Any]],
    container: Mapping[str, Any],
    maps: ConfigMaps,
    place: str,
) -> tuple[str | None, str | None]:
    """Return the text at a path in the container, and the volume that is mounted there.

    The text is None if the files do not have it, and both are None if nothing is mounted there.
    """
    path = PurePosixPath(posixpath.normpath(place))
    mounts = [m for m in _mounts(volumes, container) if path.is_relative_to(m.path)]
    # A mount hides what one at a shorter path has there.
    longest = max((len(mount.path.parts) for mount in mounts), default=0)
    unknown = None
    for mount in mounts:
        if len(mount.path.parts) < longest:
            continue
        entries = maps.get(mount.name, mount.kind)
        for key, file in (mount.items or {key: key for key in entries or ()}).items():
            if (mount.path if file is None else mount.path / posixpath.normpath(file)) == path:
                if entries is not None and key in entries:
                    return entries[key], f"{mount.kind} {mount.name}"
                unknown = f"{mount.kind} {mount.name}"
        if entries is None and not mount.items:
            unknown = f"{mount.kind} {mount.name}"
    return None, unknown


@dataclass(frozen=True)
class _Mount:
    """A volume, or a part of one, that is mounted in a container.

    Attributes:
        path: where it is mounted.
        kind: ConfigMap, Secret, or volume for any other.
        items: the files below the path by their keys; None for the key that is the path itself.
            Empty for a file of each key.
    """

    path: PurePosixPath
    kind: str
    name: str
    items: Mapping[str, str | None]


def _mounts(volumes: Sequence[Mapping[str, Any]], container: Mapping[str, Any]) -> Iterator[_Mount]:
    by_name = {volume.get("name"): volume for volume in volumes}
    for mount in container.get("volumeMounts") or ():
        volume = by_name.get(mount.get("name")) or {}
        path = PurePosixPath(posixpath.normpath(mount["mountPath"]))
        projected = (volume.get("projected") or {}).get("sources")
        for source in (volume,) if projected is None else projected:
            yield _mount(path, mount, source)


def _mount(path: PurePosixPath, mount: Mapping[str, Any], source: Mapping[str, Any]) -> _Mount:
    for kind, key in (("ConfigMap", "configMap"), ("Secret", "secret")):
        if reference := source.get(key):
            name = str(reference.get("name") or reference.get("secretName"))
            items = {i["key"]: i.get("path", i["key"]) for i in reference.get("items") or ()}
            if sub_path := mount.get("subPath"):
                keys = [key for key, file in items.items() if file == sub_path] or [sub_path]
                return _Mount(path, kind, name, {keys[0]: None})
            return _Mount(path, kind, name, items)
    return _Mount(path, "volume", str(mount.get("name")), {})
