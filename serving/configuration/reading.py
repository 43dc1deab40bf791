"""Read a config.properties as TorchServe 0.12.0 reads it.

A file in use is a fact: what TorchServe ignores is returned as such, and only what stops it from
starting is refused.
Source: org.pytorch.serve.util.ConfigManager of 0.12.0 (resolveEnvVarVals, setSystemVars).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

import javaproperties

from serving.configuration.properties import (
    BOOLEAN_KEYS,
    INTEGER_KEYS,
    KNOWN_KEYS,
    LONG_KEYS,
    read_int,
    read_long,
)
from serving.errors import ConfigError

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
        for key in sorted(KNOWN_KEYS - _NOT_FROM_ENVIRONMENT)
    },
    "token_expiration_min": "TS_TOKEN_EXPIRATION_TIME_MIN",
}
#: A variable that is named in a value; its name has two characters or more.
_VARIABLE = re.compile(r"\$\$([^$]+[^$])\$\$")
_ADDRESS = re.compile(r"https?://[^:^/]+(:(?P<port>[0-9]+))?|unix:/.*", re.IGNORECASE)
_ADDRESS_KEYS = ("inference_address", "management_address", "metrics_address")
_PORT_KEYS = frozenset(["grpc_inference_port", "grpc_management_port"])
_MAX_PORT = 65534
#: Keys that servetune reads itself. A server gets the secrets in others as variables.
READ_FROM_SECRETS = INTEGER_KEYS | LONG_KEYS | BOOLEAN_KEYS | _PORT_KEYS | {"load_models"}
#: Keys that the command torchserve reads by itself; see `start_lines`.
START_KEYS = ("vmargs", "plugins_path", "model_store")


def read_properties(
    text: str,
    environment: Mapping[str, str],
    secrets: Mapping[str, str | None] = MappingProxyType({}),
) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Return the properties that TorchServe uses, those that it ignores, and the printable form of
    those that have the value of a secret.

    `$$NAME$$` is replaced by the variable, TS_* variables count if `enable_envvars_config` is true,
    and booleans are written as true or false. The printable form has `$$NAME$$`.

    Args:
        secrets: more variables, whose values are read only into `READ_FROM_SECRETS`; None if a
            value is not known.

    Raises:
        ConfigError: TorchServe would not start with this text.
    """
    parsed, hidden = parse_lines(text), {}
    known = {name: value for name, value in secrets.items() if value is not None}
    lines = {key: fill_in(key, value, environment, secrets) for key, value in parsed.items()}
    for key in lines.keys() & READ_FROM_SECRETS:
        filled = fill_in(key, parsed[key], {**environment, **known}, secrets)
        if filled != lines[key]:
            hidden[key], lines[key] = lines[key], filled
    if lines.get("enable_envvars_config", "").lower() == "true":
        urls = lines.get("use_env_allowed_urls", "").lower() == "true"
        for key, name in VARIABLES.items():
            if name in environment and (key != "allowed_urls" or urls):
                lines[key] = environment[name]
                hidden.pop(key, None)
            elif name in known and key in READ_FROM_SECRETS:
                lines[key], hidden[key] = known[name], f"$${name}$$"
    ignored = {key: lines.pop(key) for key in list(lines) if key not in KNOWN_KEYS}
    for key in lines.keys() & BOOLEAN_KEYS:
        lines[key] = str(lines[key].lower() == "true").lower()
    unread = {key: lines.pop(key) for key in _unread_numbers(lines)}
    ignored |= {key: hidden.pop(key, value) for key, value in unread.items()}
    if problems := [*_number_problems(lines, hidden), *_address_problems(lines)]:
        raise ConfigError("; ".join(problems))
    return lines, ignored, hidden


def _unread_numbers(lines: Mapping[str, str]) -> list[str]:
    """Return the keys of integers that Java cannot read, and that TorchServe reads later or not."""
    has_metrics = lines.get("disable_system_metrics") != "true"
    late = ["unregister_model_timeout", *([] if has_metrics else ["metric_time_interval"])]
    return [key for key in late if key in lines and read_int(lines[key]) is None]


def _number_problems(lines: Mapping[str, str], hidden: Mapping[str, str]) -> Iterator[str]:
    ints, longs = INTEGER_KEYS | _PORT_KEYS, LONG_KEYS
    numbers = dict.fromkeys(ints, read_int) | dict.fromkeys(longs, read_long)
    for key in sorted(lines.keys() & numbers.keys()):
        if numbers[key](lines[key]) is None:
            shown = hidden.get(key, lines[key])
            yield f"property {key} must be an integer that Java reads (got {shown!r})"


def _address_problems(lines: Mapping[str, str]) -> Iterator[str]:
    for key in _ADDRESS_KEYS:
        match = _ADDRESS.fullmatch(lines.get(key, "http://any"))
        port = read_int(match["port"] or "0") if match else None
        if port is None or port > _MAX_PORT:
            yield (
                f"property {key} must be http://HOST:PORT, https://HOST:PORT or unix:/PATH, and no "
                f"IPv6 address (got {lines[key]!r})"
            )


def parse_lines(text: str) -> dict[str, str]:
    """Return the lines of a config.properties as Java reads them, by key.

    Raises:
        ConfigError: Java would refuse the text.
    """
    try:
        return dict(javaproperties.loads(text))
    except ValueError as error:
        raise ConfigError(f"the text is not valid Java properties: {error}") from None


def variable_names(text: str) -> list[str]:
    """Return the names of the variables `$$NAME$$` in a value."""
    return _VARIABLE.findall(text)


def without_variables(text: str) -> str:
    """Return a value without the variables `$$NAME$$` in it."""
    return _VARIABLE.sub("", text)


def fill_in(
    key: str, value: str, environment: Mapping[str, str], unknown: Collection[str] = ()
) -> str:
    """Return a property's value with its variables `$$NAME$$` replaced.

    Args:
        unknown: names of variables that stay if the environment does not have them.

    Raises:
        ConfigError: TorchServe would not start, because a variable is not set or has a dollar sign.
    """

    def variable(match: re.Match[str]) -> str:
        name = match[1]
        if name not in environment and name in unknown:
            return match[0]
        if name not in environment:
            raise ConfigError(
                f"property {key} names the environment variable {name}, which is not set; set it "
                "in the file `environment` beside config.properties"
            )
        return _replacement(key, name, environment[name])

    return _VARIABLE.sub(variable, value)


def _replacement(key: str, name: str, value: str) -> str:
    """Return a variable's value as Java's Matcher.appendReplacement writes it.

    Raises:
        ConfigError: it has a dollar sign that Java refuses.
    """

    def replaced(match: re.Match[str]) -> str:
        if match[0].startswith("\\") and len(match[0]) > 1:
            return match[0][1]
        if match[0] in ("$0", "$1"):
            return f"$${name}$$" if match[0] == "$0" else name
        raise ConfigError(
            f"property {key}: TorchServe cannot fill in {name}, because its value has a dollar "
            "sign or ends in a backslash"
        )

    return re.sub(r"\\.?|\$[0-9]?", replaced, value, flags=re.DOTALL)


def start_lines(text: str) -> dict[str, str]:
    """Return the lines of a config.properties as the command torchserve reads them, by key.

    It takes `vmargs`, `plugins_path` and `model_store` from them. It does not read a colon or a
    space as a separator, continued lines, escapes and variables.
    Source: load_properties in ts/model_server.py of 0.12.0.

    Args:
        text: the file's text, decoded as Latin-1.
    """
    lines = {}
    for line in re.split(r"\r\n|\r|\n", text):
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            lines[key.strip()] = value.strip()
    return lines
