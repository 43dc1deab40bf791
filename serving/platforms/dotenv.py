"""The environment files of Docker Compose."""

from __future__ import annotations

import re
from collections.abc import Mapping

from serving.errors import ConfigError
from serving.platforms.command import expand

_START = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][\w.-]*)[ \t]*([=:]?)")
_QUOTED = re.compile(r"[ \t]*(?:'([^']*)'|\"((?:\\.|[^\"\\])*)\")[^\n]*", re.DOTALL)
_COMMENT = re.compile(r"[ \t]#")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", **{char: char for char in '"\\$`'}}


def parse_dotenv(
    text: str, outside: Mapping[str, str], is_raw: bool = False
) -> dict[str, str | None]:
    """Read an environment file as Compose does; a name without a value has None.

    Args:
        outside: variables that the values may refer to, beside those above them.
        is_raw: whether values are left as they are, as with `format: raw`.

    Raises:
        ConfigError: a line is neither a name nor NAME=value.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    variables: dict[str, str | None] = {}
    known = {**outside}
    position = 0
    while position < len(text):
        end = text.find("\n", position)
        end = len(text) if end < 0 else end
        line = text[position:end].strip()
        match = _START.match(text, position, end)
        if not line or line.startswith("#"):
            position = end + 1
            continue
        if match is None or not (match[2] or line == match[0].strip()):
            # The line may be part of a secret.
            number = text.count("\n", 0, position) + 1
            raise ConfigError(f"line {number} of the environment file is not NAME=value")
        quoted = None if is_raw else _QUOTED.match(text, match.end())
        value: str | None = text[match.end() : end]
        if not match[2]:
            value = None
        elif quoted is not None:
            value = _unescaped(quoted[2], known) if quoted[1] is None else quoted[1]
            end = quoted.end()
        elif value is not None and not is_raw:
            value = fill_in(_COMMENT.split(value, maxsplit=1)[0].strip(), known)
        variables[match[1]] = value
        if value is not None and match[1] not in outside:
            known[match[1]] = value
        position = end + 1
    return variables


def fill_in(text: str, variables: Mapping[str, str]) -> str:
    """Fill in references as Compose does; `$$` is a dollar sign."""
    return "$".join(expand(part, variables) for part in text.split("$$"))


def _unescaped(text: str, variables: Mapping[str, str]) -> str:
    """Return text in double quotes: its references are filled in, but not after a backslash."""
    pieces = re.split(r"\\(.)", text, flags=re.DOTALL)
    return "".join(
        _ESCAPES.get(piece, f"\\{piece}") if index % 2 else fill_in(piece, variables)
        for index, piece in enumerate(pieces)
    )
