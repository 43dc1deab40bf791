"""Read a config.properties as TorchServe 0.12.0 reads it.

A file in use is a fact: what TorchServe ignores is returned as such, and only what stops it from
starting is refused.
Source: org.pytorch.serve.util.ConfigManager of 0.12.0 (readEnvVars, getJsonIntValue).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import javaproperties

from serving.archive import Archive
from serving.errors import ConfigError
from serving.properties import BOOLEAN_KEYS, INTEGER_KEYS, KNOWN_KEYS

#: Keys that no TS_* variable sets.
_NOT_FROM_ENVIRONMENT = frozenset(
    [
        "enable_envvars_config",
        "io_ratio",
        "metric_time_interval",
        "model_snapshot",
        "models",
        "plugins_path",
        "system_metrics_cmd",
        "use_env_allowed_urls",
        "use_native_io",
        "version",
        "vmargs",
    ]
)
#: The variable that sets a property if `enable_envvars_config` is true, by the property's key.
VARIABLES = {
    **{
        key: key.upper() if key.startswith("ts_") else f"TS_{key.upper()}"
        for key in KNOWN_KEYS - _NOT_FROM_ENVIRONMENT
    },
    "token_expiration_min": "TS_TOKEN_EXPIRATION_TIME_MIN",
}
#: Keys that TorchServe requires in each model of a snapshot.
_SNAPSHOT_NUMBERS = ("minWorkers", "maxWorkers", "batchSize", "maxBatchDelay")
_TOKEN = re.compile(
    r"""(?P<json>"(?:\\.|[^"\\])*"|[{}\[\],:])|'(?P<quoted>(?:\\.|[^'\\])*)'|(?P<equals>=>?)"""
    r"""|(?P<word>[^\s{}\[\],:;="']+)|\s+""",
)
_LITERAL = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?|true|false|null")
_INT_MIN, _INT_MAX = -(2**31), 2**31 - 1
_KEYED = "property {} must be a JSON object keyed by model name, then by version"
#: Characters of a value that a message shows.
_SHOWN = 40


def read_properties(
    text: str, environment: Mapping[str, str], secrets: Collection[str] = ()
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the properties that TorchServe uses, and those that it ignores.

    `$$NAME$$` is replaced by the variable, TS_* variables count if `enable_envvars_config` is true,
    and booleans are written as true or false.

    Args:
        secrets: names of variables that `$$NAME$$` may name too, and that are not filled in.

    Raises:
        ConfigError: TorchServe would not start with this text.
    """
    lines = _parse_lines(text)
    if lines.get("enable_envvars_config", "").lower() == "true":
        urls = lines.get("use_env_allowed_urls", "").lower() == "true"
        for key, name in VARIABLES.items():
            if name in environment and (key != "allowed_urls" or urls):
                lines[key] = environment[name]
    lines = {key: _substitute(key, value, environment, secrets) for key, value in lines.items()}
    ignored = {key: lines.pop(key) for key in list(lines) if key not in KNOWN_KEYS}
    for key in lines.keys() & BOOLEAN_KEYS:
        lines[key] = str(lines[key].lower() == "true").lower()
    problems = [
        f"property {key} must be an integer that Java reads (got {lines[key]!r})"
        for key in sorted(lines.keys() & INTEGER_KEYS)
        if read_int(lines[key]) is None
    ]
    if problems:
        raise ConfigError("; ".join(problems))
    return lines, ignored


def _parse_lines(text: str) -> dict[str, str]:
    try:
        return dict(javaproperties.loads(text))
    except ValueError as error:
        raise ConfigError(f"the text is not valid Java properties: {error}") from None


def read_int(text: str) -> int | None:
    """Return what Java's Integer.parseInt returns; None if it throws an exception."""
    if not re.fullmatch(r"[+-]?[0-9]+", text) or not _INT_MIN <= int(text) <= _INT_MAX:
        return None
    return int(text)


@dataclass(frozen=True)
class OtherModel:
    """A model that a server has beside the tuned one.

    Attributes:
        name: the name that it is registered with; a guess from the name of the file if
            `is_certain` is false.
        version: the version in its entry; empty without one.
        file: the name of its archive in the model store.
        entry: its entry in `models` or `model_snapshot`; empty without one.
    """

    name: str
    version: str
    file: str
    entry: Mapping[str, Any] = field(default_factory=dict)
    is_certain: bool = True

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip()


@dataclass(frozen=True)
class Models:
    """What a config.properties says about the models.

    Attributes:
        name: the name that the archive's model is registered with.
        version: the version in its entry; TorchServe does not read that of a snapshot.
        entry: its entry in `models` or `model_snapshot`; empty without one.
        others: the server's other models.
        loads_all: whether the server loads every archive in its model store.
        is_snapshot: whether the file has a `model_snapshot`. TorchServe then reads neither
            `models` nor `load_models`, and the snapshot's numbers win over the archive's.
        notes: what a reader of the file may not expect.
    """

    name: str
    version: str
    entry: Mapping[str, Any]
    others: tuple[OtherModel, ...]
    is_snapshot: bool = False
    loads_all: bool = False
    notes: tuple[str, ...] = ()


def find_models(lines: Mapping[str, str], archive: Archive) -> Models:
    """Return what the properties say about the archive's model and about others.

    Source: ModelServer.initModelStore and ModelManager.registerAndUpdateModel of 0.12.0: a
    snapshot registers each `marName` under its key, `load_models` under the alias if it has one.

    Raises:
        ConfigError: TorchServe would not start with an entry, or servetune cannot measure it.
    """
    if "model_snapshot" in lines:
        return _snapshot_models(lines, archive)
    entries = _entries("models", parse_json("models", lines.get("models", "{}")))
    load_models = lines.get("load_models", "")
    loads_all = load_models.upper() == "ALL"
    loaded = [] if loads_all else _loaded_models(load_models)
    file = archive.path.name
    is_loaded = loads_all or any(other == file for _, other in loaded)
    alias = next((alias for alias, other in loaded if alias and other == file), "")
    name = alias or (archive.manifest_name if is_loaded else "") or archive.name
    key = (name, archive.version)
    entry = _mapping("models", key, entries.pop(key, {}))
    known = {other for other, _ in entries}
    files = {alias or _stem(other): other for alias, other in loaded if other != file}
    others = set(files)
    # A file without an alias is registered under the name in its manifest, which is not known.
    is_certain = not any(_stem(f) not in known for a, f in loaded if not a and f != file)
    idle = {other for other in known if loaded and is_certain and other not in {*others, name}}
    served = [
        _other_model("models", model, entry, files.get(model[0]))
        for model, entry in entries.items()
        if model[0] not in idle
    ]
    aliases = {alias for alias, _ in loaded}
    served += [
        OtherModel(other, "", files[other], is_certain=other in aliases)
        for other in sorted(others - known)
    ]
    notes = []
    if loaded and not is_loaded:
        notes.append(f"load_models={load_models} does not load {file}")
    if idle:
        notes.append(f"models: load_models does not load {', '.join(sorted(idle))}")
    return Models(
        name, archive.version, entry, tuple(served), loads_all=loads_all, notes=tuple(notes)
    )


def _other_model(
    key: str, model: tuple[str, str], data: Any, file: str | None = None
) -> OtherModel:
    entry = _mapping(key, model, data)
    return OtherModel(*model, file or str(entry.get("marName") or f"{model[0]}.mar"), entry)


def list_models(text: str) -> list[tuple[str, str, str]]:
    """Return the name, the version and the file of each model that a config.properties loads.

    Raises:
        ConfigError: the text, or its JSON, cannot be read.
    """
    lines = _parse_lines(text)
    files = {}
    if "model_snapshot" in lines:
        snapshot = parse_json("model_snapshot", lines["model_snapshot"])
        models = snapshot.get("models") if isinstance(snapshot, dict) else None
        entries = _entries("model_snapshot", models)
    else:
        entries = _entries("models", parse_json("models", lines.get("models", "{}")))
        if (load_models := lines.get("load_models", "")).upper() != "ALL":
            files = {alias or _stem(file): file for alias, file in _loaded_models(load_models)}
    found = {
        (name, version): str(_mapping("models", (name, version), entry).get("marName", ""))
        for (name, version), entry in entries.items()
        if not files or name in files
    }
    found |= {(n, "1.0"): f for n, f in files.items() if n not in {name for name, _ in found}}
    return [
        (name, version, files.get(name) or file or f"{name}.mar")
        for (name, version), file in found.items()
    ]


def _loaded_models(load_models: str) -> list[tuple[str, str]]:
    """Return the alias, if any, and the file of each model in the property `load_models`."""
    loaded = []
    for part in load_models.split(","):
        alias, equals, file = (text.strip() for text in part.partition("="))
        if file := file if equals else alias:
            loaded.append((alias if equals else "", file))
    return loaded


def _snapshot_models(lines: Mapping[str, str], archive: Archive) -> Models:
    key = "model_snapshot"
    snapshot = parse_json(key, lines[key])
    entries = _entries(key, snapshot.get("models") if isinstance(snapshot, dict) else None)
    file = archive.path.name
    own = (archive.name, archive.version)
    for name_and_version, entry in entries.items():
        if isinstance(entry, dict) and entry.get("marName") == file:
            own = name_and_version
    entry = _mapping(key, own, entries.pop(own, {}))
    for number in _SNAPSHOT_NUMBERS if entry else ():
        # TorchServe takes these as they are; 0 is no default, and servetune cannot set it.
        if read_model_int(number, entry.get(number)) is None:
            raise ConfigError(
                f"property {key}: {number} must be at least 1 to be measured "
                f"(got {entry[number]!r})"
            )
    notes = []
    if beside := [name for name in ("models", "load_models") if name in lines]:
        notes.append(f"model_snapshot: TorchServe does not read {' and '.join(beside)} beside it")
    if not entry:
        notes.append(f"model_snapshot has no entry for {file}: TorchServe does not load it")
    others = tuple(_other_model(key, model, data) for model, data in entries.items())
    return Models(*own, entry, others, True, notes=tuple(notes))


def _stem(file: str) -> str:
    return file.removesuffix(".mar").removesuffix(".tar.gz")


def _entries(key: str, models: Any) -> dict[tuple[str, str], Any]:
    """Return the entries by name and version.

    Raises:
        ConfigError: they are not keyed by name, then by version.
    """
    if models == []:
        return {}  # Gson reads an empty array as an empty map.
    if not isinstance(models, dict):
        raise ConfigError(f"{_KEYED.format(key)} (found {json.dumps(models)[:_SHOWN]})")
    for name, versions in models.items():
        if not isinstance(versions, dict):
            raise ConfigError(
                f"{_KEYED.format(key)} (found {json.dumps(versions)[:_SHOWN]} for {name})"
            )
    return {(name, v): e for name, versions in models.items() for v, e in versions.items()}


def _mapping(key: str, model: tuple[str, str], entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise ConfigError(f"property {key}: the entry of {' '.join(model)} must be a mapping")
    return entry


def read_model_int(key: str, value: Any) -> int | None:
    """Return a number of a model's entry; None if TorchServe takes its default instead.

    Raises:
        ConfigError: TorchServe would not start with this value.
    """
    if isinstance(value, float) and math.isfinite(value):
        value = math.trunc(value)
    number = None if isinstance(value, bool) else read_int(str(value))
    if number is None:
        raise ConfigError(f"the models' {key} must be an integer (got {value!r})")
    return number if number > 0 else None


def parse_json(key: str, text: str) -> Any:
    """Parse the JSON of `models` or `model_snapshot` as TorchServe's parser, Gson, does.

    Raises:
        ConfigError: Gson would refuse the text.
    """
    try:
        return json.loads(_TOKEN.sub(_as_json, text))
    except json.JSONDecodeError as error:
        if error.pos >= len(error.doc.rstrip()) or text.strip() in ("{", "["):
            raise ConfigError(
                f"the JSON of property {key} has no end (found {text[-_SHOWN:]!r}); JSON over "
                "several lines needs a backslash at the end of each line but the last"
            ) from None
        found = error.doc[error.pos : error.pos + _SHOWN]
        raise ConfigError(f"{_KEYED.format(key)}, and is no JSON from {found!r} on") from None


def _as_json(token: re.Match[str]) -> str:
    """Return a token of the JSON that Gson reads as strict JSON: 'a', a and a=1 are allowed."""
    if token["quoted"] is not None:
        return json.dumps(re.sub(r"\\(.)", r"\1", token["quoted"]))
    if token["equals"]:
        return ":"
    if word := token["word"]:
        is_name = re.match(r"\s*[:=]", token.string[token.end() :]) is not None
        return word if _LITERAL.fullmatch(word) and not is_name else json.dumps(word)
    return token[0]


def _substitute(
    key: str, value: str, environment: Mapping[str, str], secrets: Collection[str]
) -> str:
    def variable(match: re.Match[str]) -> str:
        name = match[1]
        if name in secrets:
            return match[0]
        if name not in environment:
            raise ConfigError(
                f"property {key} names the environment variable {name}, which is not set; set it "
                "in the file `environment` beside config.properties"
            )
        return environment[name]

    return re.sub(r"\$\$(\w+)\$\$", variable, value)
