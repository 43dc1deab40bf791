"""One proposed configuration of TorchServe, and the files that carry it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import javaproperties

from serving import properties as known
from serving.archive import Archive
from serving.errors import ConfigError

#: Settings with a key of their own in config.properties.
SERVER_KEYS = {
    "netty_threads": "number_of_netty_threads",
    "netty_client_threads": "netty_client_threads",
    "job_queue_size": "job_queue_size",
}
#: Settings that belong to one model, as keys of the `models` property's JSON.
#: maxWorkers does not autoscale, so workers sets both.
MODEL_KEYS = {
    "workers": ("minWorkers", "maxWorkers"),
    "batch_size": ("batchSize",),
    "max_batch_delay_ms": ("maxBatchDelay",),
    "response_timeout_s": ("responseTimeout",),
}
SETTINGS = (*MODEL_KEYS, *SERVER_KEYS, "mkl_threads")
THREAD_VARIABLES = ("MKL_NUM_THREADS", "OMP_NUM_THREADS")
#: Keys of the `models` JSON that carry no setting: always written.
_MODEL_IDENTITY = ("defaultVersion", "marName")
_MODEL_EXTRAS = ("startupTimeout", "runtimeType", "maxWorkers")
_SPLIT_JVM = re.compile(r"(-X(?:m[xsn]|ss))(.+)|(-[^=]+)(?:=(.*))?", re.DOTALL)


@dataclass(frozen=True)
class ServerConfig:
    """A TorchServe configuration; a setting that is None is left to TorchServe's own default.

    Attributes:
        workers: backend processes of the model (minWorkers = maxWorkers).
        batch_size: requests in one batch, at most.
        max_batch_delay_ms: how long a batch waits to fill, milliseconds.
        netty_threads, netty_client_threads: event loops of the front end and toward workers.
        mkl_threads: MKL_NUM_THREADS and OMP_NUM_THREADS of every worker.
        job_queue_size: requests that may wait, per model.
        response_timeout_s: seconds after which a worker that does not answer is killed.
        properties: further keys of config.properties.
        environment: further environment variables of the server and its workers.
        jvm: JVM arguments: `{"-Xmx": "2g", "-XX:ParallelGCThreads": "2", "-server": ""}`.
        model_properties: further keys of the model's entry in `models` (startupTimeout, …).
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
        wrong = list(self._wrong())
        if wrong:
            raise ConfigError("; ".join(wrong))

    def _wrong(self) -> list[str]:
        wrong = []
        for name in SETTINGS:
            value = getattr(self, name)
            if value is None:
                continue
            if type(value) is not int or not 1 <= value < 2**31:
                why = ", and TorchServe reads 0 as 100" if name == "max_batch_delay_ms" else ""
                wrong.append(f"{name} must be an integer ≥ 1{why}; got {value!r}")
        own_names = {key: name for name, key in SERVER_KEYS.items()}
        for key, text in self.properties.items():
            if key in own_names:
                wrong.append(f"property {key} has a name of its own here: {own_names[key]}")
            elif key in ("models", "vmargs"):
                wrong.append(f"property {key} is written from the other settings")
            elif key in known.OWNED:
                wrong.append(f"property {key} is set by servetune for every configuration")
            elif problem := known.check(key, text):
                wrong.append(problem)
        for name, text in self.environment.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or "\n" in text:
                wrong.append(f"environment variable {name}={text!r} cannot be set")
            if name in THREAD_VARIABLES and self.mkl_threads is not None:
                wrong.append(f"environment variable {name} and mkl_threads set the same thing")
            if name in ("TS_CONFIG_FILE", "LOG_LOCATION", "METRICS_LOCATION"):
                wrong.append(f"environment variable {name} is set by servetune itself")
        for flag, text in self.jvm.items():
            if not flag.startswith("-") or re.search(r"\s", flag + text):
                wrong.append(f"JVM argument {flag!r} must start with '-' and hold no space")
        for key in self.model_properties:
            if key not in _MODEL_EXTRAS:
                wrong.append(f"model property {key} is not read by TorchServe 0.12.0")
        return wrong

    # --- what is written -------------------------------------------------------------

    def jvm_arguments(self) -> list[str]:
        """The JVM's command-line arguments."""
        return [
            flag + text
            if not text or flag in ("-Xmx", "-Xms", "-Xmn", "-Xss")
            else f"{flag}={text}"
            for flag, text in self.jvm.items()
        ]

    def environment_variables(self) -> dict[str, str]:
        """Every variable that this configuration sets, threads included."""
        threads = {}
        if self.mkl_threads is not None:
            threads = dict.fromkeys(THREAD_VARIABLES, str(self.mkl_threads))
        return {**threads, **self.environment}

    def environment_text(self) -> str:
        """The environment as lines `NAME=value`, as a shell's `set -a` and systemd read them."""
        return "".join(
            f"{name}={_quoted(text)}\n" for name, text in self.environment_variables().items()
        )

    def properties_text(self, archive: Archive, site: Mapping[str, str]) -> str:
        """The whole config.properties.

        Args:
            archive: the model that is loaded.
            site: the properties that belong to the place, not to the configuration
                (addresses, ports, model store, metrics; see `serving.properties.OWNED`).
        """
        lines = {**site, "load_models": archive.path.name, **self.lines(archive)}
        return "".join(f"{key}={escaped(text)}\n" for key, text in lines.items())

    def lines(self, archive: Archive) -> dict[str, str]:
        """The lines of config.properties that are the configuration's own, by key."""
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

    # --- what is read back -----------------------------------------------------------

    @classmethod
    def parse(
        cls, text: str, archive: Archive, environment: Mapping[str, str] | None = None
    ) -> tuple[ServerConfig, dict[str, str]]:
        """Read a config.properties (and its environment) back.

        Returns:
            The configuration, and the lines that it does not hold because servetune sets
            them itself or because they speak of another model, by key.

        Raises:
            ConfigError: a key that TorchServe does not know, or an impossible value.
        """
        try:
            lines: dict[str, str] = dict(javaproperties.loads(text))
        except ValueError as error:
            raise ConfigError(f"not a file of Java properties: {error}") from None
        overridden = {key: lines.pop(key) for key in list(lines) if key in known.OWNED}
        wrong = [p for key, value in lines.items() if (p := known.check(key, value))]
        if wrong:
            raise ConfigError("; ".join(wrong))
        found: dict[str, Any] = {}
        for name, key in SERVER_KEYS.items():
            text_of_it = lines.pop(key, None)
            # 0 leaves the threads to TorchServe; a queue of 0 aborts its start and is refused.
            if text_of_it is not None and (int(text_of_it) != 0 or name == "job_queue_size"):
                found[name] = int(text_of_it)
        found["jvm"] = _parse_jvm(lines.pop("vmargs", ""))
        entry, others = _model_entry(lines.pop("models", "{}"), archive)
        if others:
            overridden["models"] = others
        for name, keys in MODEL_KEYS.items():
            if keys[0] in entry:
                found[name] = entry.pop(keys[0])
        if entry.get("maxWorkers") == found.get("workers"):
            entry.pop("maxWorkers", None)
        found["model_properties"] = {
            key: value for key, value in entry.items() if key not in _MODEL_IDENTITY
        }
        variables = dict(environment or {})
        threads = {variables.get(name) for name in THREAD_VARIABLES}
        if len(threads) == 1 and (only := threads.pop()) and only.isdigit() and int(only) > 0:
            found["mkl_threads"] = int(only)
            variables = {k: v for k, v in variables.items() if k not in THREAD_VARIABLES}
        return cls(**found, properties=lines, environment=variables), overridden

    # --- as data ---------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The settings that are set, as plain JSON data."""
        return {
            f.name: dict(value) if isinstance(value, Mapping) else value
            for f in fields(self)
            if (value := getattr(self, f.name)) not in (None, {})
        }

    @cached_property
    def digest(self) -> str:
        """The same text for equal configurations, whatever the order of their settings."""
        canonical = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def parse_environment(text: str) -> dict[str, str]:
    """Read an environment file of lines `NAME=value` (quotes as the shell's)."""
    found = {}
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
        found[name] = value
    return found


def _quoted(text: str) -> str:
    return text if re.fullmatch(r"[\w./:,+@%-]*", text) else "'" + text.replace("'", "'\\''") + "'"


def escaped(text: str) -> str:
    """A value as a line holds it: Java reads Latin-1, and a backslash as an escape.

    ':' and '=' stay as they are: the torchserve wrapper reads vmargs without unescaping.
    """
    text = text.replace("\\", "\\\\")
    return "".join(c if " " <= c <= "~" else f"\\u{ord(c):04x}" for c in text)


def _parse_jvm(vmargs: str) -> dict[str, str]:
    found = {}
    for argument in vmargs.split():
        match = _SPLIT_JVM.fullmatch(argument)
        if match is None:
            raise ConfigError(f"vmargs: {argument!r} is not a JVM argument")
        flag, value = (match[1], match[2]) if match[1] else (match[3], match[4] or "")
        if flag in found:
            raise ConfigError(f"vmargs: {flag} is given twice")
        found[flag] = value
    return found


def _model_entry(models: str, archive: Archive) -> tuple[dict[str, Any], str]:
    """The archive's own entry of `models`, and the names of the entries that are not its own."""
    try:
        parsed = json.loads(models)
        pairs = {(name, v): e for name, versions in parsed.items() for v, e in versions.items()}
    except (ValueError, AttributeError) as error:
        raise ConfigError(
            f"property models is not the JSON that TorchServe reads: {error}"
        ) from None
    entry = pairs.pop((archive.name, archive.version), {})
    if not isinstance(entry, dict):
        raise ConfigError(f"property models has no mapping for {archive.name} {archive.version}")
    others = ", ".join(f"{name} {version}" for name, version in pairs)
    return entry, others
