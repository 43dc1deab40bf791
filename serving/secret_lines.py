"""Secrets in the lines of a config.properties, which a run's copy of the file must not have."""

from __future__ import annotations

import re

import javaproperties

from serving.config import escape_property
from serving.environment import REDACTED, is_secret, secret_variable
from serving.jvm import (
    JVM_VARIABLE,
    format_variable,
    parse_jvm,
    redact_arguments,
    take_secrets,
)
from serving.models import parse_load_models
from serving.reading import parse_lines, start_lines


def redacted_text(text: str) -> str:
    """Return the text without the values of secrets, also in comments and repeated lines.

    A line is read as before, except for these values: `load_models` keeps aliases and files.
    """
    return "".join(_redacted(element) for element in javaproperties.parse(text))


def _redacted(element: javaproperties.PropertiesElement) -> str:
    source = element.source
    if not isinstance(element, javaproperties.KeyValue):
        mark = re.match(r"[ \t\f]*[#!]+[ \t]*", source)
        if mark is None:
            return source
        # A line that is commented out.
        try:
            inner = list(javaproperties.parse(source[mark.end() :]))
        except ValueError:  # Prose with a backslash.
            return source
        return mark[0] + "".join(map(_redacted, inner))
    key, value = element.key, element.value
    end = source[len(source.rstrip("\r\n")) :]
    if key == "vmargs":
        start = re.match(r"[ \t\f]*vmargs[ \t\f]*[=:]?[ \t\f]*", source)
        if start is not None:
            return start[0] + redact_arguments(source[start.end() :])
        hidden = redact_arguments(value)
        # The command torchserve reads neither an escape in a key nor a colon behind it.
        return source if hidden == value else f"{key}: {escape_property(hidden)}{end}"
    if not is_secret(key, value) or "$$" in value:
        return source
    if key == "load_models":
        parts = (f"{part.alias}={part.file}" for part in parse_load_models(value))
        value = ",".join(part.removeprefix("=") for part in parts)
        if not is_secret(key, value):
            return f"{key}={escape_property(value)}{end}"
    return f"{javaproperties.escape(key)}={REDACTED}{end}"


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


def secret_names(text: str) -> list[str]:
    """Return the keys of the lines and the flags of the JVM arguments that are secrets."""
    return [*_secret_keys(parse_lines(text)), *secret_arguments(text)]


def _secret_keys(lines: dict[str, str]) -> list[str]:
    # A line that names a variable has no secret itself.
    return [key for key, text in lines.items() if is_secret(key, text) and "$$" not in text]
