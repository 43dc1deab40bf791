"""A configuration in the place where it will serve: its addresses, its own lines, its archive."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import javaproperties
import yaml

from serving import properties as known
from serving.archive import MANIFEST, Archive
from serving.config import MODEL_KEYS, SERVER_KEYS, ServerConfig, escaped
from serving.errors import ArchiveError, ConfigError

#: TorchServe's own ports. Only inference listens beyond the host; tokens are asked for.
DEFAULTS = {
    "inference_address": "http://0.0.0.0:8080",
    "management_address": "http://127.0.0.1:8081",
    "metrics_address": "http://127.0.0.1:8082",
    "grpc_inference_address": "127.0.0.1",
    "grpc_management_address": "127.0.0.1",
    "grpc_inference_port": "7070",
    "grpc_management_port": "7071",
    "disable_token_authorization": "false",
    "disable_system_metrics": "true",
    "metrics_mode": "prometheus",
}
_TUNED = {*SERVER_KEYS.values(), "models", "vmargs", "load_models"}
#: By setting: its keys in an archive's own model-config.yaml.
IN_ARCHIVE = {**MODEL_KEYS, "job_queue_size": ("jobQueueSize",)}
#: What may change a rate, and is no matter of the place.
MATTERS = {*known.INTEGERS, *known.BOOLEANS, "cpu_launcher_args", "vmargs"} - known.OWNED
MATTERS -= {"token_expiration_min", "initial_worker_port", "initial_distribution_port"}


@dataclass(frozen=True)
class DeploymentTarget:
    """Where a configuration will serve.

    Attributes:
        base: the config.properties that is in use there, as text. Its lines and comments stay,
            but for those that the configuration speaks of.
        given: properties of the place by key, which beat the base's and `DEFAULTS`.
    """

    base: str | None = None
    given: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wrong = []
        for key, text in self.given.items():
            if key in _TUNED:
                wrong.append(f"{key} belongs to the configuration, which was measured with its own")
            elif problem := known.check(key, text):
                wrong.append(problem)
        if wrong:
            raise ConfigError("; ".join(wrong))

    def properties_text(self, config: ServerConfig, archive: Archive) -> str:
        """The whole config.properties of this configuration here.

        Raises:
            ConfigError: what is given here is a setting of the configuration, or the base is no
                file of Java properties.
        """
        if tuned := sorted(self.given.keys() & config.properties.keys()):
            raise ConfigError(f"{tuned[0]} belongs to the configuration, which sets it itself")
        if self.base is None:
            return config.properties_text(archive, {**DEFAULTS, **self.given})
        lines: dict[str, str | None] = dict.fromkeys(SERVER_KEYS.values())
        lines |= config.lines(archive)
        lines["models"] = _models(self._held().get("models", "{}"), archive, lines.get("models"))
        lines |= self.given
        return edited(self.base, lines, {"load_models": archive.path.name})

    def kept(self, config: ServerConfig) -> dict[str, str]:
        """What here may change the rate, and the configuration was not measured with."""
        spoken = {*SERVER_KEYS.values(), *config.properties, *(["vmargs"] if config.jvm else [])}
        held = {**self._held(), **self.given}
        return {key: held[key] for key in sorted(held.keys() & MATTERS - spoken)}

    def notes(self, config: ServerConfig, archive: Archive) -> list[str]:
        """What whoever takes the file must know of the base."""
        notes = [
            f"{key}={text} stays, and the configuration was measured without it"
            for key, text in self.kept(config).items()
        ]
        loaded = self._held().get("load_models")
        if loaded not in (None, "all", "ALL") and archive.path.name not in {
            part.rpartition("=")[2].strip() for part in loaded.split(",")
        }:
            notes.append(f"load_models={loaded} does not load {archive.path.name}")
        return notes

    def _held(self) -> dict[str, str]:
        try:
            return dict(javaproperties.loads(self.base or ""))
        except ValueError as error:
            raise ConfigError(f"not a file of Java properties: {error}") from None


def _models(held: str, archive: Archive, ours: str | None) -> str | None:
    """The JSON of `models`, with this archive's entry replaced and the others as they were."""
    try:
        models: dict[str, dict[str, Any]] = json.loads(held)
        versions = models.get(archive.name, {})
        versions.pop(archive.version, None)
    except (ValueError, AttributeError) as error:
        raise ConfigError(
            f"property models is not the JSON that TorchServe reads: {error}"
        ) from None
    versions = {**versions, **(json.loads(ours)[archive.name] if ours else {})}
    models = {**models, archive.name: versions}
    if not versions:
        del models[archive.name]
    return json.dumps(models, separators=(",", ":")) if models else None


def edited(
    text: str, lines: Mapping[str, str | None], missing: Mapping[str, str] = MappingProxyType({})
) -> str:
    """A config.properties with other lines: all else in it stays as it is written.

    Args:
        lines: by key; None takes a line out.
        missing: added where the text has no such line.
    """
    return "".join(_edited(text, lines, missing))


def _edited(
    base: str, lines: Mapping[str, str | None], missing: Mapping[str, str]
) -> Iterator[str]:
    held = set()
    for element in javaproperties.parse(base):
        source = element.source if element.source.endswith("\n") else element.source + "\n"
        if not isinstance(element, javaproperties.KeyValue):
            yield source
            continue
        key, is_first = element.key, element.key not in held
        held.add(key)
        if key not in lines or _same(element.value, lines[key]):
            yield source
        elif is_first and (text := lines[key]) is not None:
            yield f"{key}={escaped(text)}\n"
    for key, text in {**missing, **lines}.items():
        if key not in held and text is not None:
            yield f"{key}={escaped(text)}\n"


def _same(before: str, now: str | None) -> bool:
    try:
        # As text again: 1 and true are equal in Python.
        first, second = (
            json.dumps(json.loads(text), sort_keys=True) for text in (before, now or "")
        )
        return first == second
    except ValueError:
        return before == now


def in_archive(config: ServerConfig) -> dict[str, int]:
    """What of a configuration an archive's own model-config.yaml can hold, by its keys."""
    found = {
        key: getattr(config, name)
        for name, keys in IN_ARCHIVE.items()
        for key in keys
        if getattr(config, name) is not None
    }
    extra = {k: int(v) for k, v in config.model_properties.items() if k == "startupTimeout"}
    return {**found, **extra}


def beside_archive(config: ServerConfig) -> ServerConfig:
    """The rest of a configuration, which files beside the archive must hold.

    The length of the job queue is in both: the server's own is for its other models.
    """
    rest = {k: v for k, v in config.model_properties.items() if k == "runtimeType"}
    unset: dict[str, Any] = dict.fromkeys(MODEL_KEYS)
    return replace(config, **unset, model_properties=rest)


def rebuild(archive: Archive, settings: Mapping[str, int], path: Path) -> str:
    """Write the archive anew, with these settings in its model-config.yaml.

    What else its model-config.yaml held stays.

    Returns:
        The new model-config.yaml.

    Raises:
        ArchiveError: the archive's own model-config.yaml is none.
    """
    with zipfile.ZipFile(archive.path) as old:
        manifest = json.loads(old.read(MANIFEST))
        name = manifest["model"].setdefault("configFile", "model-config.yaml")
        held: Any = {}
        if name in old.namelist():
            try:
                held = yaml.safe_load(old.read(name)) or {}
            except yaml.YAMLError as error:
                raise ArchiveError(f"{archive.path}: {name} is not YAML: {error}") from None
        if not isinstance(held, dict):
            raise ArchiveError(f"{archive.path}: {name} holds no settings")
        text: str = yaml.safe_dump({**held, **settings}, sort_keys=False)
        changed = {MANIFEST: json.dumps(manifest, indent=2), name: text}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            for entry in old.infolist():
                if entry.filename not in changed:
                    new.writestr(entry, old.read(entry))
            for filename, content in changed.items():
                new.writestr(filename, content)
    return text
