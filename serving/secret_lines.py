"""Secrets in the lines of a config.properties, which a run's copy of the file must not have."""

from __future__ import annotations

import javaproperties

from serving.environment import REDACTED, is_secret, secret_variable
from serving.jvm import (
    JVM_VARIABLE,
    format_variable,
    parse_jvm,
    redact_arguments,
    take_secrets,
)
from serving.reading import parse_lines, start_lines


def redacted_lines(text: str) -> dict[str, str]:
    """Return the lines to replace, by key, so that no value of a secret is left."""
    lines = javaproperties.loads(text)
    redacted = dict.fromkeys(_secret_keys(lines), REDACTED)
    if "vmargs" in lines and (vmargs := redact_arguments(lines["vmargs"])) != lines["vmargs"]:
        redacted["vmargs"] = vmargs
    return redacted


def secret_values(text: str) -> dict[str, str]:
    """Return the secrets in a file by the names of the variables that stand for them.

    Raises:
        ConfigError: Java would refuse the text.
    """
    lines = parse_lines(text)
    values = {secret_variable(key): lines[key] for key in _secret_keys(lines)}
    if arguments := secret_arguments(text):
        values[JVM_VARIABLE] = format_variable(arguments)
    return values


def secret_arguments(text: str) -> dict[str, str]:
    """Return the JVM arguments in the line `vmargs` that are secrets, by flag."""
    return take_secrets(parse_jvm(start_lines(text).get("vmargs", "")))


def _secret_keys(lines: dict[str, str]) -> list[str]:
    # A line that names a variable has no secret itself.
    return [key for key, text in lines.items() if is_secret(key, text) and "$$" not in text]
