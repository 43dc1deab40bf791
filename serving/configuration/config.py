"""A configuration of TorchServe, written to config.properties and environment."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from serving.archive import Archive
from serving.configuration.properties import (
    SET_BY_SERVETUNE,
    UNBATCHED_ENVELOPES,
    VARIABLES_SET_BY_SERVETUNE,
    check_property,
)
from serving.errors import ConfigError

#: Settings of the server and their keys in config.properties.
SERVER_KEYS = {
    "netty_threads": "number_of_netty_threads",
    "netty_client_threads": "netty_client_threads",
    "job_queue_size": "job_queue_size",
}
#: Settings of one model and their keys in the JSON of the property `models`. TorchServe does not
#: scale between minWorkers and maxWorkers, so workers sets both.
MODEL_KEYS = {
    "workers": ("minWorkers", "maxWorkers"),
    "batch_size": ("batchSize",),
    "max_batch_delay_ms": ("maxBatchDelay",),
    "response_timeout_s": ("responseTimeout",),
}
MODEL_NUMBERS = tuple(key for keys in MODEL_KEYS.values() for key in keys)
#: Settings that an archive's model-config.yaml can hold, with their keys there.
ARCHIVE_KEYS = {**MODEL_KEYS, "job_queue_size": ("jobQueueSize",)}
SETTINGS = (*MODEL_KEYS, *SERVER_KEYS, "mkl_threads")
_PLACE_VARIABLES = ("TS_CONFIG_FILE", "LOG_LOCATION", "METRICS_LOCATION")
THREAD_VARIABLES = ("MKL_NUM_THREADS", "OMP_NUM_THREADS")
#: TorchServe reads numbers as Java's `int`.
MAX_SETTING = 2**31 - 1
#: Other keys in the JSON of `models`.
MODEL_PROPERTIES = ("startupTimeout", "runtimeType", "maxWorkers")
JVM_SIZE_FLAGS = ("-Xmx", "-Xms", "-Xmn", "-Xss")


@dataclass(frozen=True)
class ServerConfig:
    """A TorchServe configuration. A setting that is None keeps TorchServe's default.

    Attributes:
        workers: backend processes of the model (minWorkers = maxWorkers).
        batch_size: maximum number of requests in a batch.
        max_batch_delay_ms: maximum time that a batch waits to fill, milliseconds.
        netty_threads: event loops of the front end.
        netty_client_threads: event loops of the connections to the workers.
        mkl_threads: MKL_NUM_THREADS and OMP_NUM_THREADS of every worker.
        job_queue_size: maximum number of waiting requests of the model.
        response_timeout_s: time after which TorchServe kills an unresponsive worker, seconds.
        properties: other keys of config.properties.
        environment: other environment variables of the server and its workers.
        jvm: JVM arguments: `{"-Xmx": "2g", "-XX:ParallelGCThreads": "2", "-server": ""}`.
        model_properties: other keys of the model's entry in `models` (startupTimeout, …).
        models: settings of the server's other models by name: those of MODEL_KEYS under their
            names here, and MODEL_PROPERTIES. A missing setting is TorchServe's default.

    Raises:
        ConfigError: TorchServe would refuse, ignore or misread a setting.
    """

    workers: int | None = None
    batch_size: int | None = None
    max_batch_delay_ms: int | None = None
    netty_threads: int | None = None
    netty_client_threads: int | None = None
    mkl_threads: int | None = None
    job_queue_size: int | None = None
    response_timeout_s: int | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    jvm: Mapping[str, str] = field(default_factory=dict)
    model_properties: Mapping[str, str | int] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, str | int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = self._problems()
        if problems:
            raise ConfigError("; ".join(problems))

    def _problems(self) -> list[str]:
        given = {name: getattr(self, name) for name in SETTINGS}
        numbers = {name: value for name, value in given.items() if value is not None}
        problems = []
        for model, settings in self.models.items():
            for name, value in settings.items():
                path = f"models.{model}.{name}"
                if name in MODEL_KEYS:
                    numbers[path] = value
                elif name not in MODEL_PROPERTIES:
                    known = ", ".join((*MODEL_KEYS, *MODEL_PROPERTIES))
                    problems.append(f"{path} is not a setting of a model; known are {known}")
        for name, value in numbers.items():
            if type(value) is not int or value < 1:
                note = "; TorchServe reads 0 as 100" if name.endswith("max_batch_delay_ms") else ""
                problems.append(f"{name} must be an integer of at least 1 (got {value!r}){note}")
            elif value > MAX_SETTING:
                problems.append(f"{name} must be at most {MAX_SETTING} (got {value})")
        names = {key: name for name, key in SERVER_KEYS.items()}
        for key, text in self.properties.items():
            if key in names:
                problems.append(
                    f"property {key} cannot be set directly; use the setting {names[key]}"
                )
            elif key in ("models", "vmargs"):
                problems.append(f"property {key} is written from the other settings; remove it")
            elif key in SET_BY_SERVETUNE:
                problems.append(f"property {key} is set by servetune; remove it")
            elif problem := check_property(key, text):
                problems.append(problem)
        for name, text in self.environment.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or "\n" in text:
                problems.append(
                    f"environment variable {name} needs a valid shell name and a value without "
                    "line breaks"
                )
            if name in THREAD_VARIABLES and self.mkl_threads is not None:
                problems.append(
                    f"environment variable {name} and mkl_threads set the same thing; remove one"
                )
            if name in _PLACE_VARIABLES or name in VARIABLES_SET_BY_SERVETUNE:
                problems.append(f"environment variable {name} is set by servetune; remove it")
        for flag, text in self.jvm.items():
            if not flag.startswith(("-", "@")) or re.search(r"\s", flag + text):
                problems.append(f"JVM argument {flag!r} must start with '-' and contain no space")
        for key in self.model_properties:
            if key not in MODEL_PROPERTIES:
                problems.append(
                    f"model property {key} is not known to TorchServe and would be ignored"
                )
        return problems

    def batch_problems(self) -> list[str]:
        """Return a sentence for each batch size of which the envelope passes one request."""
        envelope = self.properties.get("service_envelope")
        if envelope not in UNBATCHED_ENVELOPES:
            return []
        sizes: dict[str, Any] = {"batch_size": self.batch_size}
        for model, given in self.models.items():
            sizes[f"models.{model}.batch_size"] = given.get("batch_size")
        return [
            f"{name} must be 1 (got {size}): the envelope {envelope} passes only the first request "
            "of a batch to the handler, and TorchServe fails the others"
            for name, size in sizes.items()
            if size is not None and int(size) > 1
        ]

    # --- writing ---------------------------------------------------------------------

    def jvm_arguments(self) -> list[str]:
        """Return the command-line arguments of the JVM."""
        return [
            flag + text if not text or flag in JVM_SIZE_FLAGS else f"{flag}={text}"
            for flag, text in self.jvm.items()
        ]

    @property
    def threads(self) -> int | None:
        """Threads that torch starts in each worker; None if they are not set to a number.

        By mkl_threads or the variables, of which MKL_NUM_THREADS takes precedence.
        """
        variables = self.environment_variables()
        texts = [variables[name] for name in THREAD_VARIABLES if name in variables]
        return int(texts[0]) if texts and texts[0].isdecimal() else None

    def environment_variables(self) -> dict[str, str]:
        """Return all variables that this configuration sets, those of mkl_threads included."""
        threads = {}
        if self.mkl_threads is not None:
            threads = dict.fromkeys(THREAD_VARIABLES, str(self.mkl_threads))
        return {**threads, **self.environment}

    def environment_text(self) -> str:
        """Return the variables as lines `NAME=value`, for a shell's `set -a` and for systemd."""
        return format_environment(self.environment_variables())

    def properties_text(
        self, archive: Archive, site: Mapping[str, str], others: Sequence[Archive] = ()
    ) -> str:
        """Return the whole config.properties.

        Args:
            archive: the model to load.
            site: the properties of the place, not of the configuration: addresses, ports,
                metrics (see `serving.configuration.properties.SET_BY_SERVETUNE`).
            others: the other models to load.
        """
        load_models = ",".join(model.load_models for model in (archive, *others))
        lines = {**site, "load_models": load_models, **self.lines(archive, others)}
        return "".join(f"{key}={property_value(key, text)}\n" for key, text in lines.items())

    def lines(self, archive: Archive, others: Sequence[Archive] = ()) -> dict[str, str]:
        """Return the lines of config.properties that this configuration sets, by key."""
        lines = self.server_lines()
        models = {}
        for model in (archive, *others):
            config = self if model is archive else self.of_model(model.name)
            if entry := config.model_entry():
                entry = {"defaultVersion": True, "marName": model.path.name, **entry}
                models[model.name] = {model.version: entry}
        if models:
            lines["models"] = json.dumps(models, separators=(",", ":"))
        if self.jvm:
            lines["vmargs"] = " ".join(self.jvm_arguments())
        return lines

    def server_lines(self) -> dict[str, str]:
        """Return the lines of config.properties that apply to the whole server, by key."""
        lines = {
            key: str(getattr(self, name))
            for name, key in SERVER_KEYS.items()
            if getattr(self, name) is not None
        }
        return {**lines, **self.properties}

    def of_model(self, name: str) -> ServerConfig:
        """Return the settings of another model alone, in the form of the tuned model's."""
        given = self.models.get(name, {})
        settings: dict[str, Any] = {key: given[key] for key in MODEL_KEYS if key in given}
        properties = {key: value for key, value in given.items() if key not in MODEL_KEYS}
        return ServerConfig(**settings, model_properties=properties)

    def model_entry(self) -> dict[str, Any]:
        """Return the settings in the model's entry of `models`, by key."""
        settings = {
            key: getattr(self, name)
            for name, keys in MODEL_KEYS.items()
            for key in keys
            if getattr(self, name) is not None
        }
        return {**settings, **self.model_properties}

    # --- conversion ------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return all settings that are not None or empty, as JSON data."""
        data = {
            f.name: dict(value) if isinstance(value, Mapping) else value
            for f in fields(self)
            if f.name != "models" and (value := getattr(self, f.name)) not in (None, {})
        }
        models = {name: dict(settings) for name, settings in self.models.items() if settings}
        return {**data, "models": models} if models else data

    @cached_property
    def digest(self) -> str:
        """Hash that is equal for equal configurations, in any order of their settings."""
        canonical = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def format_environment(variables: Mapping[str, str]) -> str:
    """Return variables as lines `NAME=value`, quoted if necessary."""
    return "".join(f"{name}={_quoted(text)}\n" for name, text in variables.items())


def _quoted(text: str) -> str:
    """Return a value in the form that a shell, systemd and Docker Compose read alike."""
    if re.fullmatch(r"[\w./:,+@%-]*", text):
        return text
    if "'" not in text:
        return f"'{text}'"
    # systemd knows no '\'' between quotes.
    return '"' + re.sub(r'(["$`\\])', r"\\\1", text) + '"'


def property_value(key: str, text: str) -> str:
    """Return a value as it is written to config.properties.

    The torchserve command, which alone reads vmargs, does so without unescaping.
    """
    return text if key == "vmargs" and text.isascii() else escape_property(text)


def escape_property(text: str) -> str:
    """Escape a value for config.properties, which Java reads as Latin-1 with backslash escapes."""
    text = text.replace("\\", "\\\\")
    text = f"\\{text}" if text.startswith(" ") else text
    return "".join(c if " " <= c <= "~" else f"\\u{ord(c):04x}" for c in text)
