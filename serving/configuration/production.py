"""Configurations in production: a config.properties in use, with the tuned lines changed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import javaproperties

from serving.archive import Archive
from serving.configuration.config import (
    MODEL_KEYS,
    SERVER_KEYS,
    ServerConfig,
    format_environment,
)
from serving.configuration.deployment import Deployment
from serving.configuration.editing import EntryChange, edit_properties
from serving.configuration.environment import SHELL_NAME, is_secret
from serving.configuration.models import entry_values, parse_json, parse_load_models
from serving.configuration.properties import (
    BOOLEAN_KEYS,
    INTEGER_KEYS,
    SET_BY_SERVETUNE,
    check_property,
)
from serving.configuration.reading import VARIABLES
from serving.configuration.secret_lines import secret_arguments, secret_values
from serving.configuration.versions import NEWEST, TorchServeVersion
from serving.errors import ConfigError

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
#: JVM arguments of which Java accepts only one.
_COLLECTOR = re.compile(r"-XX:\+Use(Serial|Parallel|ParallelOld|G1|Z|Shenandoah|Epsilon)GC")


@dataclass(frozen=True)
class DeploymentTarget:
    """The properties of the place in which a configuration will serve.

    Attributes:
        base: text of the config.properties in use there, decoded as Latin-1. Only the lines of
            settings whose effective value changes are replaced; every other byte stays.
        given: properties by key that override the base and `DEFAULT_PROPERTIES`.
        environment: variables of the server in use there.
        version: of TorchServe there.
        others: archives of the models that are served beside the tuned one.

    Raises:
        ConfigError: `given` has a key of the configuration, or an invalid property.
    """

    base: str | None = None
    given: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    version: TorchServeVersion = NEWEST
    others: tuple[Archive, ...] = ()

    def __post_init__(self) -> None:
        problems = []
        for key, text in self.given.items():
            if key in _TUNED_KEYS:
                problems.append(f"{key} is part of the measured configuration and cannot be set")
            elif problem := check_property(key, text) or self.version.problem_with(key):
                problems.append(problem)
            elif text != text.strip():
                problems.append(f"{key} must have no leading or trailing spaces (got {text!r})")
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
            default = {k: v for k, v in DEFAULT_PROPERTIES.items() if self.version.reads(k)}
            return config.properties_text(archive, {**default, **self.given}, self.others)
        in_use = self._in_use(archive)
        before = in_use.config.lines(in_use.archive)
        lines = {
            key: text
            for key, text in config.lines(archive).items()
            if key not in ("models", "vmargs") and before.get(key) != text
        }
        if not config.jvm.items() <= in_use.config.jvm.items():
            kept = {
                **in_use.place_jvm,
                **secret_arguments(self.base),
                **_kept_arguments(in_use.config, config),
            }
            # Of contradictory arguments, the last one counts.
            jvm = replace(config, jvm={**kept, **config.jvm})
            lines["vmargs"] = " ".join(jvm.jvm_arguments())
        written = dict(javaproperties.loads(self.base))
        key = "model_snapshot" if "model_snapshot" in written else "models"
        changes = _changed_entries(key, written, config, in_use)
        if key == "models":
            if parse_load_models(written.get("load_models", "")):
                lines |= self._added_models(written["load_models"])
            elif in_use.others:
                lines["load_models"] = "all"
            else:
                archives = (in_use.archive, *self.others)
                lines["load_models"] = ",".join(each.load_models for each in archives)
        entries = {key: changes} if changes else {}
        return edit_properties(self.base, {**lines, **self.given}, entries)

    def _added_models(self, load_models: str) -> dict[str, str]:
        """Return the line `load_models` with the other models that the base does not load."""
        if load_models.upper() == "ALL":
            return {}
        loaded = {part.file for part in parse_load_models(load_models) if part.is_found}
        added = [each.load_models for each in self.others if each.path.name not in loaded]
        return {"load_models": ",".join([load_models, *added])} if added else {}

    def unmeasured(self, config: ServerConfig, archive: Archive) -> ServerConfig:
        """Return what may change the rate and stays in the base, but was not measured."""
        base = self._in_use(archive).config
        given = {key: text for key, text in self.given.items() if key not in SERVER_KEYS.values()}
        kept: dict[str, Any] = {
            name: getattr(base, name)
            for name in (*MODEL_KEYS, *SERVER_KEYS)
            if getattr(config, name) is None
        }
        properties = {**base.properties, **given}
        kept["properties"] = {
            key: properties[key]
            for key in sorted(properties.keys() & RATE_PROPERTIES - config.properties.keys())
        }
        kept["jvm"] = _kept_arguments(base, config)
        written = config.model_entry()  # A number of workers sets maxWorkers too.
        kept["model_properties"] = {
            key: value for key, value in base.model_properties.items() if key not in written
        }
        models = {}
        for name, settings in base.models.items():
            written = {**config.models.get(name, {}), **config.of_model(name).model_entry()}
            models[name] = {k: v for k, v in settings.items() if k not in written}
        kept["models"] = {name: settings for name, settings in models.items() if settings}
        return ServerConfig(**kept)

    def notes(self, config: ServerConfig, archive: Archive) -> list[str]:
        """Return notes for the user: what was not measured, what will not have an effect."""
        in_use, unmeasured = self._in_use(archive), self.unmeasured(config, archive)
        kept = [f"{key}={text}" for key, text in unmeasured.server_lines().items()]
        for model in (in_use.archive, *in_use.beside):
            is_tuned = model is in_use.archive
            entry = (unmeasured if is_tuned else unmeasured.of_model(model.name)).model_entry()
            kept += [f"{key}={value} of the model {model.name}" for key, value in entry.items()]
        if unmeasured.jvm:
            kept.append(f"vmargs={' '.join(unmeasured.jvm_arguments())}")
        notes = [f"{each} is kept, but the configuration was measured without it" for each in kept]
        if not self.version.reads("grpc_inference_address"):
            notes.append(
                f"TorchServe {self.version.number} opens its gRPC ports on all addresses of the "
                "host, without authorization: close them to others with a firewall"
            )
        if self.base is None:
            return notes
        if in_use.others:
            names = ", ".join(in_use.other_models)
            notes.append(f"the file also serves {names}, beside which nothing was measured")
        changed = config.lines(archive)
        overriding = [
            name
            for key, name in VARIABLES.items()
            if key in changed and name in self.environment and in_use.reads_variables
        ]
        if overriding:
            notes.append(
                f"{', '.join(overriding)} in the environment take precedence over "
                "config.properties: deploy the file `environment`, which has the tuned values"
            )
        elif in_use.reads_variables:
            notes.append(
                "enable_envvars_config is true: a variable TS_* in the environment takes "
                "precedence over its line in config.properties"
            )
        exported = replace(self, base=self.properties_text(config, archive))
        return notes + list(exported._in_use(archive).notes)

    @property
    def secrets(self) -> frozenset[str]:
        """Names of the variables in use whose values are not exported."""
        return frozenset(name for name, text in self.environment.items() if is_secret(name, text))

    @property
    def line_secrets(self) -> frozenset[str]:
        """Names of the variables that stand for secrets in the lines of the base, which stay."""
        return frozenset(secret_values(self.base) if self.base else ()) - self.environment.keys()

    def environment_text(self, config: ServerConfig, archive: Archive) -> str:
        """Return the lines `NAME=value` of the variables in use and of the configuration."""
        lines = config.lines(archive)
        tuned = {name: lines[key] for key, name in VARIABLES.items() if key in lines}
        in_use = {
            name: tuned.get(name, text)
            for name, text in self.environment.items()
            if name not in self.secrets and SHELL_NAME.fullmatch(name)
        }
        return format_environment({**in_use, **config.environment_variables()})

    def _in_use(self, archive: Archive) -> Deployment:
        if self.base is None:
            return Deployment.of_archive(archive)
        return Deployment.read(self.base, self.environment, archive).with_models(self.others)


def _kept_arguments(base: ServerConfig, config: ServerConfig) -> dict[str, str]:
    """Return the JVM arguments of the base that the configuration does not set."""
    has_collector = any(_COLLECTOR.fullmatch(flag) for flag in config.jvm)
    return {
        flag: text
        for flag, text in base.jvm.items()
        if flag not in config.jvm and not (has_collector and _COLLECTOR.fullmatch(flag))
    }


def _changed_entries(
    key: str, written: Mapping[str, str], config: ServerConfig, in_use: Deployment
) -> list[EntryChange]:
    """Return the changes in the entries of `models` or `model_snapshot`.

    Raises:
        ConfigError: the snapshot has no entry of an archive.
    """
    document = parse_json(key, written.get(key, "{}"))
    found = document if key == "models" else document.member("models") or document
    versions: dict[str, list[str]] = {}
    for name, version, _ in entry_values(key, found):
        versions.setdefault(name, []).append(version)
    outer = () if key == "models" else ("models",)
    changes = []
    for archive in (in_use.archive, *in_use.beside):
        is_tuned = archive is in_use.archive
        after = config if is_tuned else config.of_model(archive.name)
        before = (in_use.config if is_tuned else in_use.config.of_model(archive.name)).model_entry()
        # A snapshot wins over the archive, which wins over `models` and carries these itself.
        archived = archive.overridden_keys if key == "models" else ()
        values = {
            name: value
            for name, value in after.model_entry().items()
            if before.get(name) != value and name not in archived
        }
        if not values:
            continue
        known = versions.get(archive.name, [])
        version = in_use.version if is_tuned else archive.version
        if version not in known and key == "model_snapshot":
            # TorchServe does not read the version in a snapshot.
            version = version if is_tuned else next(iter(known), version)
            if version not in known:
                raise ConfigError(
                    f"property model_snapshot has no entry of {archive.name} {version}; add one"
                )
        new_entry = {"defaultVersion": True, "marName": archive.path.name}
        changes.append(EntryChange((*outer, archive.name, version), values, new_entry))
    return changes


def inference_port(properties: Mapping[str, str]) -> int:
    """Return the port that answers predictions."""
    address = urlsplit(properties.get("inference_address", "http://127.0.0.1:8080"))
    return address.port or (443 if address.scheme == "https" else 80)


def listen_everywhere(text: str) -> str:
    """Return a config.properties whose predictions are answered on all addresses."""
    properties = javaproperties.loads(text)
    scheme = urlsplit(properties.get("inference_address", "http://127.0.0.1:8080")).scheme
    address = f"{scheme}://0.0.0.0:{inference_port(properties)}"
    return edit_properties(text, {"inference_address": address})
