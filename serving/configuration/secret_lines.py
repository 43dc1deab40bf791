"""Secrets in the lines of a config.properties, which a run's copy of the file must not have."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from types import MappingProxyType

import javaproperties

from serving.configuration.config import escape_property
from serving.configuration.environment import REDACTED, is_secret, secret_variable
from serving.configuration.jvm import (
    JVM_VARIABLE,
    format_variable,
    parse_jvm,
    redact_arguments,
    take_secrets,
)
from serving.configuration.models import without_urls
from serving.configuration.reading import (
    fill_in,
    parse_lines,
    start_lines,
    variable_names,
    without_variables,
)

_JSON_KEYS = ("models", "model_snapshot")
#: The name and the text of an entry in the JSON that TorchServe accepts.
_JSON_TEXT = re.compile(
    r"""(?P<start>(["']?)(?P<name>[\w.-]+)\2\s*:\s*(["']))(?P<text>.*?)(?P<end>(?<!\\)\4)""",
    re.DOTALL,
)


def redacted_text(text: str) -> str:
    """Return the text without the values of secrets, also in comments and repeated lines.

    A line is read as before, except for these values: `load_models` keeps aliases and files.
    """
    return "".join(_redacted(element) for element in javaproperties.parse(text))


def _redacted(element: javaproperties.PropertiesElement) -> str:
    source = element.source
    if not isinstance(element, javaproperties.KeyValue):
        return _redacted_comment(source)
    key, value = element.key, element.value
    end = source[len(source.rstrip("\r\n")) :]
    if key == "vmargs":
        start = re.match(r"[ \t\f]*vmargs[ \t\f]*[=:]?[ \t\f]*", source)
        if start is not None:
            return start[0] + redact_arguments(source[start.end() :])
        hidden = redact_arguments(value)
        # The command torchserve reads neither an escape in a key nor a colon behind it.
        return source if hidden == value else f"{key}: {escape_property(hidden)}{end}"
    if key in _JSON_KEYS:  # The settings of the models are no secrets.
        hidden = _JSON_TEXT.sub(_redacted_entry, value)
        return source if hidden == value else f"{key}={escape_property(hidden)}{end}"
    if not has_secret(key, value):
        return source
    if key == "load_models":
        value = without_urls(value)
        if not is_secret(key, value):
            return f"{key}={escape_property(value)}{end}"
    return f"{javaproperties.escape(key)}={REDACTED}{end}"


def _redacted_comment(source: str) -> str:
    mark = re.match(r"[ \t\f]*[#!]+[ \t]*", source)
    if mark is None:
        return source
    text = source[mark.end() :]
    with contextlib.suppress(ValueError):  # Prose with a backslash.
        text = redacted_text(text)  # A line that is out of use.
    words = [word.partition("=") for word in text.replace(REDACTED, "").split()]
    if any(is_secret("", "".join(word)) or (word[2] and is_secret(*word[::2])) for word in words):
        end = source[len(source.rstrip("\r\n")) :]
        text = f"{REDACTED}{end}"
    return mark[0] + text


def has_secret(key: str, text: str) -> bool:
    """Return whether a line has a secret, beside those in the variables that it names."""
    own = without_variables(text)
    return bool(own) and is_secret(key, own)


def secret_variables(text: str, environment: Mapping[str, str]) -> frozenset[str]:
    """Return the names of the variables in lines that are secrets with their values.

    Raises:
        ConfigError: TorchServe would not start with a line.
    """
    return frozenset(
        name
        for key, value in parse_lines(text).items()
        for name in variable_names(value)
        if is_secret(key, fill_in(key, value, environment))
    )


def secret_values(
    text: str, environment: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """Return the secrets in a file by the names of the variables that stand for them.

    Args:
        environment: variables that the lines may name.

    Raises:
        ConfigError: Java would refuse the text.
    """
    values = {
        secret_variable(key): fill_in(key, value, environment, variable_names(value))
        for key, value in parse_lines(text).items()
        if has_secret(key, value)
    }
    if arguments := secret_arguments(text):
        values[JVM_VARIABLE] = format_variable(arguments)
    return values


def _redacted_entry(match: re.Match[str]) -> str:
    hidden = is_secret(match["name"], match["text"])
    return f"{match['start']}{REDACTED}{match['end']}" if hidden else match[0]


def secret_arguments(text: str) -> dict[str, str]:
    """Return the JVM arguments in the line `vmargs` that are secrets, by flag."""
    return take_secrets(parse_jvm(start_lines(text).get("vmargs", "")))


def secret_names(text: str) -> list[str]:
    """Return where a file has secrets: keys, flags of JVM arguments, and `a comment` for any."""
    keys = [key for key, value in parse_lines(text).items() if has_secret(key, value)]
    comments = (e for e in javaproperties.parse(text) if not isinstance(e, javaproperties.KeyValue))
    has_comment = any(_redacted(comment) != comment.source for comment in comments)
    return [*keys, *secret_arguments(text), *(["a comment"] if has_comment else [])]
