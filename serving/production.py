"""Configurations in production: a config.properties in use, with the tuned lines changed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import javaproperties

from serving.archive import Archive
from serving.config import SERVER_KEYS, ServerConfig, escape_property
from serving.errors import ConfigError
from serving.properties import BOOLEAN_KEYS, INTEGER_KEYS, SET_BY_SERVETUNE, check_property
from serving.reading import parse_json, read_snapshot

#: TorchServe's default ports. Only inference listens beyond the host; tokens are required.
DEFAULT_PROPERTIES = {
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
_TUNED_KEYS = {*SERVER_KEYS.values(), "models", "vmargs", "load_models"}
#: Properties that may change a rate and do not depend on the host.
RATE_PROPERTIES = {*INTEGER_KEYS, *BOOLEAN_KEYS, "cpu_launcher_args", "vmargs"} - SET_BY_SERVETUNE
RATE_PROPERTIES -= {"token_expiration_min", "initial_worker_port", "initial_distribution_port"}


@dataclass(frozen=True)
class DeploymentTarget:
    """The properties of the place in which a configuration will serve.

    Attributes:
        base: text of the config.properties in use there. Its comments stay, and so do its
            lines, unless the configuration sets the same key.
        given: properties by key that override the base and `DEFAULT_PROPERTIES`.

    Raises:
        ConfigError: `given` has a key of the configuration, or an invalid property.
    """

    base: str | None = None
    given: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = []
        for key, text in self.given.items():
            if key in _TUNED_KEYS:
                problems.append(f"{key} is part of the measured configuration and cannot be set")
            elif problem := check_property(key, text):
                problems.append(problem)
        if problems:
            raise ConfigError("; ".join(problems))

    def properties_text(self, config: ServerConfig, archive: Archive) -> str:
        """Return the whole config.properties of this configuration in this place.

        Raises:
            ConfigError: `given` has a key that the configuration sets, or the base is not valid.
        """
        if conflicts := sorted(self.given.keys() & config.properties.keys()):
            raise ConfigError(
                f"{conflicts[0]} is part of the measured configuration and cannot be set"
            )
        if self.base is None:
            return config.properties_text(archive, {**DEFAULT_PROPERTIES, **self.given})
        lines: dict[str, str | None] = dict.fromkeys(SERVER_KEYS.values())
        lines |= config.lines(archive)
        base_models = self._base_properties().get("models", "{}")
        if (snapshot := self._base_properties().get("model_snapshot")) is not None:
            # TorchServe reads no `models` beside a snapshot.
            lines["model_snapshot"] = _merge_snapshot(snapshot, archive, lines.pop("models", None))
        else:
            lines["models"] = _merge_models(base_models, archive, lines.get("models"))
        lines |= self.given
        return edit_properties(self.base, lines, {"load_models": archive.path.name})

    def kept(self, config: ServerConfig) -> dict[str, str]:
        """Return the properties that may change the rate and stay, but were not measured."""
        replaced = {*SERVER_KEYS.values(), *config.properties, *(["vmargs"] if config.jvm else [])}
        present = {**self._base_properties(), **self.given}
        return {key: present[key] for key in sorted(present.keys() & RATE_PROPERTIES - replaced)}

    def notes(self, config: ServerConfig, archive: Archive) -> list[str]:
        """Return notes for the user: properties that were not measured, an archive not loaded."""
        notes = [
            f"{key}={text} is kept, but the configuration was measured without it"
            for key, text in self.kept(config).items()
        ]
        load_models = self._base_properties().get("load_models")
        if load_models not in (None, "all", "ALL") and archive.path.name not in {
            part.rpartition("=")[2].strip() for part in load_models.split(",")
        }:
            notes.append(f"load_models={load_models} does not load {archive.path.name}")
        return notes

    def _base_properties(self) -> dict[str, str]:
        try:
            return dict(javaproperties.loads(self.base or ""))
        except ValueError as error:
            raise ConfigError(f"the text is not valid Java properties: {error}") from None


def _merge_models(base_models: str, archive: Archive, own_models: str | None) -> str | None:
    """Return the JSON of `models` with this archive's entry replaced and all others unchanged."""
    try:
        models: dict[str, dict[str, Any]] = parse_json("models", base_models)
        versions = models.get(archive.name, {})
        versions.pop(archive.version, None)
    except AttributeError as error:
        raise ConfigError(
            f"property models must be a JSON object keyed by model name, then by version: {error}"
        ) from None
    versions = {**versions, **(json.loads(own_models)[archive.name] if own_models else {})}
    models = {**models, archive.name: versions}
    if not versions:
        del models[archive.name]
    return json.dumps(models, separators=(",", ":")) if models else None


def _merge_snapshot(text: str, archive: Archive, own_models: str | None) -> str:
    """Return a snapshot whose entry of this archive has the tuned numbers; the rest is unchanged.

    Raises:
        ConfigError: the text is no snapshot with an entry of this archive.
    """
    entry, _ = read_snapshot(text, archive)
    if not entry:
        raise ConfigError(
            f"property model_snapshot has no entry of {archive.name} {archive.version}; add one"
        )
    own = json.loads(own_models)[archive.name][archive.version] if own_models else {}
    snapshot = parse_json("model_snapshot", text)
    snapshot["models"][archive.name][archive.version] = {**entry, **own}
    return json.dumps(snapshot, separators=(",", ":"))


def edit_properties(
    text: str, lines: Mapping[str, str | None], missing: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Return a config.properties with some lines replaced and all others unchanged.

    Args:
        lines: new values by key; None removes a line.
        missing: values by key that are added if the text does not have them.
    """
    return "".join(_edited_lines(text, lines, missing))


def _edited_lines(
    base: str, lines: Mapping[str, str | None], missing: Mapping[str, str]
) -> Iterator[str]:
    seen = set()
    for element in javaproperties.parse(base):
        source = element.source if element.source.endswith("\n") else element.source + "\n"
        if not isinstance(element, javaproperties.KeyValue):
            yield source
            continue
        key, is_first = element.key, element.key not in seen
        seen.add(key)
        if key not in lines or _is_equal(element.value, lines[key]):
            yield source
        elif is_first and (text := lines[key]) is not None:
            yield f"{key}={escape_property(text)}\n"
    for key, value in {**missing, **lines}.items():
        if key not in seen and value is not None:
            yield f"{key}={escape_property(value)}\n"


def _is_equal(before: str, after: str | None) -> bool:
    """Return whether two values are equal as text or as JSON."""
    try:
        # Compared as JSON text, because 1 and true are equal in Python.
        first, second = (
            json.dumps(json.loads(text), sort_keys=True) for text in (before, after or "")
        )
        return first == second
    except ValueError:
        return before == after
