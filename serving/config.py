"""A configuration of TorchServe, written to config.properties and environment and read back."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from serving.archive import Archive
from serving.errors import ConfigError
from serving.properties import SET_BY_SERVETUNE, check_property
from serving.reading import VARIABLES, read_model_int, read_models, read_properties, read_snapshot

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
#: Settings that an archive's model-config.yaml can hold, with their keys there.
ARCHIVE_KEYS = {**MODEL_KEYS, "job_queue_size": ("jobQueueSize",)}
SETTINGS = (*MODEL_KEYS, *SERVER_KEYS, "mkl_threads")
THREAD_VARIABLES = ("MKL_NUM_THREADS", "OMP_NUM_THREADS")
#: Keys in the JSON of `models` that are always written and are not settings.
_MODEL_IDENTITY = ("defaultVersion", "marName")
_MODEL_PROPERTIES = ("startupTimeout", "runtimeType", "maxWorkers")
_JVM_SIZE_FLAGS = ("-Xmx", "-Xms", "-Xmn", "-Xss")
#: Options whose value is the next word, and which may be repeated with another module.
_TWO_WORDS = ("--add-opens", "--add-exports", "--add-modules", "--add-reads")
_JVM_ARGUMENT = re.compile(
    r"(-X(?:m[xsn]|ss))(.+)|(--add-[a-z]+=[^=]+|-[^=]+)(?:=(.*))?", re.DOTALL
)
#: Keys of a file that servetune sets itself; the snapshot holds the model's settings.
_NOT_READ = SET_BY_SERVETUNE - {"model_snapshot"}
_MODEL_NUMBERS = tuple(key for keys in MODEL_KEYS.values() for key in keys)


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

    def __post_init__(self) -> None:
        problems = self._problems()
        if problems:
            raise ConfigError("; ".join(problems))

    def _problems(self) -> list[str]:
        problems = []
        for name in SETTINGS:
            value = getattr(self, name)
            if value is None:
                continue
            if type(value) is not int or not 1 <= value < 2**31:
                note = "; TorchServe reads 0 as 100" if name == "max_batch_delay_ms" else ""
                problems.append(f"{name} must be an integer of at least 1 (got {value!r}){note}")
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
                    f"environment variable {name}={text!r} needs a valid shell name and a value "
                    "without line breaks"
                )
            if name in THREAD_VARIABLES and self.mkl_threads is not None:
                problems.append(
                    f"environment variable {name} and mkl_threads set the same thing; remove one"
                )
            if name in ("TS_CONFIG_FILE", "LOG_LOCATION", "METRICS_LOCATION"):
                problems.append(f"environment variable {name} is set by servetune; remove it")
        for flag, text in self.jvm.items():
            if not flag.startswith("-") or re.search(r"\s", flag + text):
                problems.append(f"JVM argument {flag!r} must start with '-' and contain no space")
        for key in self.model_properties:
            if key not in _MODEL_PROPERTIES:
                problems.append(
                    f"model property {key} is not known to TorchServe 0.12.0 and would be ignored"
                )
        return problems

    # --- writing ---------------------------------------------------------------------

    def jvm_arguments(self) -> list[str]:
        """Return the command-line arguments of the JVM."""
        return [
            flag + text if not text or flag in _JVM_SIZE_FLAGS else f"{flag}={text}"
            for flag, text in self.jvm.items()
        ]

    def environment_variables(self) -> dict[str, str]:
        """Return all variables that this configuration sets, those of mkl_threads included."""
        threads = {}
        if self.mkl_threads is not None:
            threads = dict.fromkeys(THREAD_VARIABLES, str(self.mkl_threads))
        return {**threads, **self.environment}

    def environment_text(self) -> str:
        """Return the variables as lines `NAME=value`, for a shell's `set -a` and for systemd."""
        return "".join(
            f"{name}={_quoted(text)}\n" for name, text in self.environment_variables().items()
        )

    def properties_text(self, archive: Archive, site: Mapping[str, str]) -> str:
        """Return the whole config.properties.

        Args:
            archive: the model to load.
            site: the properties of the place, not of the configuration: addresses, ports,
                metrics (see `serving.properties.SET_BY_SERVETUNE`).
        """
        lines = {**site, "load_models": archive.path.name, **self.lines(archive)}
        return "".join(f"{key}={escape_property(text)}\n" for key, text in lines.items())

    def lines(self, archive: Archive) -> dict[str, str]:
        """Return the lines of config.properties that this configuration sets, by key."""
        lines = {
            key: str(getattr(self, name))
            for name, key in SERVER_KEYS.items()
            if getattr(self, name) is not None
        } | dict(self.properties)
        entry: dict[str, Any] = {
            key: getattr(self, name)
            for name, keys in MODEL_KEYS.items()
            for key in keys
            if getattr(self, name) is not None
        } | dict(self.model_properties)
        if entry:
            entry = {"defaultVersion": True, "marName": archive.path.name, **entry}
            models = {archive.name: {archive.version: entry}}
            lines["models"] = json.dumps(models, separators=(",", ":"))
        if self.jvm:
            lines["vmargs"] = " ".join(self.jvm_arguments())
        return lines

    # --- reading ---------------------------------------------------------------------

    @classmethod
    def parse(
        cls, text: str, archive: Archive, environment: Mapping[str, str] | None = None
    ) -> tuple[ServerConfig, dict[str, str]]:
        """Read a config.properties and the variables of its environment.

        Returns:
            The configuration, and by key the lines that are not part of it: servetune sets
            them, they are about another model, TorchServe ignores them, or the archive's
            model-config.yaml overrides them.

        Raises:
            ConfigError: TorchServe would not start with this text.
        """
        variables = dict(environment or {})
        lines, overridden = read_properties(text, variables)
        if lines.get("enable_envvars_config") == "true":  # They are among the lines now.
            variables = {k: v for k, v in variables.items() if k not in VARIABLES.values()}
        overridden |= {key: lines.pop(key) for key in list(lines) if key in _NOT_READ}
        settings: dict[str, Any] = {}
        for name, key in SERVER_KEYS.items():
            value = lines.pop(key, None)
            # 0 threads means TorchServe's default; a queue of 0 aborts its start and is refused.
            if value is not None and (int(value) != 0 or name == "job_queue_size"):
                settings[name] = int(value)
        settings["jvm"] = _parse_jvm(lines.pop("vmargs", ""))
        models = lines.pop("models", "{}")
        snapshot = lines.pop("model_snapshot", None)
        entry, others = (
            read_models(models, archive) if snapshot is None else read_snapshot(snapshot, archive)
        )
        if others:
            overridden["models"] = ", ".join(others)
        archived = archive.overridden_keys if snapshot is None else ()
        for key in (*_MODEL_NUMBERS, "startupTimeout"):
            number = read_model_int(key, entry.get(key, 0))
            if key in entry and (number is None or key in archived):
                overridden[key] = str(entry.pop(key))
            elif number is not None:
                entry[key] = number
        if "jobQueueSize" in archive.overridden_keys and "job_queue_size" in settings:
            overridden["job_queue_size"] = str(settings.pop("job_queue_size"))
        for name, keys in MODEL_KEYS.items():
            if keys[0] in entry:
                settings[name] = entry.pop(keys[0])
        if entry.get("maxWorkers") == settings.get("workers"):
            entry.pop("maxWorkers", None)
        settings["model_properties"] = {k: v for k, v in entry.items() if k in _MODEL_PROPERTIES}
        overridden |= {
            key: str(text)
            for key, text in entry.items()
            if key not in (*_MODEL_PROPERTIES, *_MODEL_IDENTITY)
        }
        counts = {variables.get(name) for name in THREAD_VARIABLES}
        if len(counts) == 1 and (count := counts.pop()) and count.isdigit() and int(count) > 0:
            settings["mkl_threads"] = int(count)
            variables = {k: v for k, v in variables.items() if k not in THREAD_VARIABLES}
        return cls(**settings, properties=lines, environment=variables), overridden

    # --- conversion ------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return all settings that are not None or empty, as JSON data."""
        return {
            f.name: dict(value) if isinstance(value, Mapping) else value
            for f in fields(self)
            if (value := getattr(self, f.name)) not in (None, {})
        }

    @cached_property
    def digest(self) -> str:
        """Hash that is equal for equal configurations, in any order of their settings."""
        canonical = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def parse_environment(text: str) -> dict[str, str]:
    """Read the lines `NAME=value` of an environment file; values may be quoted.

    Raises:
        ConfigError: a line is not NAME=value.
    """
    variables = {}
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip().removeprefix("export ")
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals:
            raise ConfigError(f"line {number} of the environment file is not NAME=value: {line!r}")
        if len(value) > 1 and value[0] == value[-1] == "'":
            value = value[1:-1].replace("'\\''", "'")
        elif len(value) > 1 and value[0] == value[-1] == '"':
            value = value[1:-1]
        variables[name] = value
    return variables


def _quoted(text: str) -> str:
    return text if re.fullmatch(r"[\w./:,+@%-]*", text) else "'" + text.replace("'", "'\\''") + "'"


def escape_property(text: str) -> str:
    """Escape a value for config.properties, which Java reads as Latin-1 with backslash escapes.

    ':' and '=' are not escaped, because the torchserve wrapper reads vmargs without unescaping.
    """
    text = text.replace("\\", "\\\\")
    return "".join(c if " " <= c <= "~" else f"\\u{ord(c):04x}" for c in text)


def _parse_jvm(vmargs: str) -> dict[str, str]:
    arguments = {}
    try:
        words = shlex.split(vmargs)
    except ValueError as error:
        raise ConfigError(f"vmargs: {error}") from None
    remaining = iter(words)
    for argument in remaining:
        if argument in _TWO_WORDS:
            argument = f"{argument}={next(remaining, '')}"
        match = _JVM_ARGUMENT.fullmatch(argument)
        if match is None:
            raise ConfigError(f"vmargs: {argument!r} is not a JVM argument")
        flag, value = (match[1], match[2]) if match[1] else (match[3], match[4] or "")
        arguments[flag] = value
    return arguments
