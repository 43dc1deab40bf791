"""Read a config.properties as TorchServe 0.12.0 reads it.

A file in use is a fact: what TorchServe ignores is returned as such, and only what stops it from
starting is refused.
Source: org.pytorch.serve.util.ConfigManager of 0.12.0 (readEnvVars, getJsonIntValue).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
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
        "system_metrics_cmd",
        "use_env_allowed_urls",
        "use_native_io",
        "version",
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


def read_properties(
    text: str, environment: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the properties that TorchServe uses, and those that it ignores.

    `$$NAME$$` is replaced by the variable, TS_* variables count if `enable_envvars_config` is true,
    and booleans are written as true or false.

    Raises:
        ConfigError: TorchServe would not start with this text.
    """
    try:
        lines = dict(javaproperties.loads(text))
    except ValueError as error:
        raise ConfigError(f"the text is not valid Java properties: {error}") from None
    if lines.get("enable_envvars_config", "").lower() == "true":
        urls = lines.get("use_env_allowed_urls", "").lower() == "true"
        for key, name in VARIABLES.items():
            if name in environment and (key != "allowed_urls" or urls):
                lines[key] = environment[name]
    lines = {key: _substitute(key, value, environment) for key, value in lines.items()}
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


def read_int(text: str) -> int | None:
    """Return what Java's Integer.parseInt returns; None if it throws an exception."""
    if not re.fullmatch(r"[+-]?[0-9]+", text) or not _INT_MIN <= int(text) <= _INT_MAX:
        return None
    return int(text)


def read_models(text: str, archive: Archive) -> tuple[dict[str, Any], list[str]]:
    """Return the archive's entry in the property `models`, and the names of the other entries.

    Raises:
        ConfigError: the text is not an object by model name and version.
    """
    return _entries("models", parse_json("models", text), archive)


def read_snapshot(text: str, archive: Archive) -> tuple[dict[str, Any], list[str]]:
    """Return the archive's entry in `model_snapshot`, and the names of the other entries.

    TorchServe reads no `models` beside it, and its numbers win over the archive's.

    Raises:
        ConfigError: the text is not a snapshot with `models` by name and version.
    """
    snapshot = parse_json("model_snapshot", text)
    models = snapshot.get("models") if isinstance(snapshot, dict) else None
    entry, others = _entries("model_snapshot", models, archive)
    for key in _SNAPSHOT_NUMBERS if entry else ():
        # TorchServe takes these as they are; 0 is no default, and servetune cannot set it.
        if read_model_int(key, entry.get(key)) is None:
            raise ConfigError(
                f"property model_snapshot: {key} must be at least 1 to be measured "
                f"(got {entry[key]!r})"
            )
    return entry, others


def _entries(key: str, models: Any, archive: Archive) -> tuple[dict[str, Any], list[str]]:
    try:
        entries = {(name, v): e for name, versions in models.items() for v, e in versions.items()}
    except AttributeError as error:
        raise ConfigError(
            f"property {key} must be a JSON object keyed by model name, then by version: {error}"
        ) from None
    entry = entries.pop((archive.name, archive.version), {})
    if not isinstance(entry, dict):
        raise ConfigError(
            f"property {key}: the entry of {archive.name} {archive.version} must be a mapping"
        )
    return entry, [f"{name} {version}" for name, version in entries]


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
        problem = (
            f"property {key} must be a JSON object keyed by model name, then by version: {error}"
        )
        if error.pos >= len(error.doc.rstrip()):
            problem += (
                "; JSON over several lines needs a backslash at the end of each line but the last"
            )
        raise ConfigError(problem) from None


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


def _substitute(key: str, value: str, environment: Mapping[str, str]) -> str:
    def variable(match: re.Match[str]) -> str:
        name = match[1]
        if name not in environment:
            raise ConfigError(
                f"property {key} names the environment variable {name}, which is not set; set it "
                "in the file `environment` beside config.properties"
            )
        return environment[name]

    return re.sub(r"\$\$(\w+)\$\$", variable, value)
