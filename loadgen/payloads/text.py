"""Split the text of a requests file into JSON objects. Pure.

The text is a sequence of JSON objects, each on one line or more, or JSON arrays of such objects.
Only `\\n` ends a line: U+2028 and U+0085 are text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_SPACE = re.compile(r"[ \t\r\n\ufeff]*")
#: The members whose JSON text is sent, and so may contain what any client may send.
_SENT = ("body", "multipart")


@dataclass(frozen=True)
class Member:
    """The value of a key, and its JSON text as it is in the file."""

    value: Any
    source: str


Members = dict[str, Member]


class JsonTextError(ValueError):
    """Text that is not JSON.

    Attributes:
        position: the index of the character at which it is found.
    """

    def __init__(self, problem: str, position: int):
        super().__init__(problem)
        self.position = position


def decode(data: bytes) -> str:
    """Return the text of a requests file.

    Raises:
        ValueError: the bytes are not UTF-8; the message names the line.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("line 1: the text is UTF-16; save the file as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8, or "
            "send other bytes by body_base64 or file"
        ) from None


def split(text: str) -> Iterator[tuple[int, Members | str]]:
    """Yield each request's line, and its members or the reason why it has none.

    Lines are counted from 1; that of a request is the line where it begins. The text after
    a mistake in the JSON itself is not read.
    """
    line, counted = 1, 0
    position = _skip(text, 0)
    while position < len(text):
        line, counted = line + text.count("\n", counted, position), position
        try:
            if text[position] == "[":
                for start, found in _elements(text, position):
                    if isinstance(found, int):
                        position = found
                        continue
                    line, counted = line + text.count("\n", counted, start), start
                    yield line, found
            else:
                found, position = _value(text, position)
                yield line, found
            following = _skip(text, position)
            if following < len(text) and "\n" not in text[position:following]:
                raise JsonTextError(
                    "there is more text after the request; write one request per line", position
                )
        except JsonTextError as error:
            yield line, _located(text, line, counted, error)
            return
        position = _skip(text, position)


def scan_objects(source: str) -> list[Members]:
    """Return the members of each object of a JSON array.

    Raises:
        ValueError: the text is not an array of objects.
    """
    objects = []
    for _, found in _elements(source, 0):
        if isinstance(found, str):
            raise ValueError(found)
        if not isinstance(found, int):
            objects.append(found)
    return objects


def _located(text: str, line: int, start: int, error: JsonTextError) -> str:
    """Return a problem with its column, and its line if the request begins on another one."""
    further = text.count("\n", start, error.position)
    column = error.position - text.rfind("\n", 0, error.position)
    if not further:
        return f"{error} (column {column})"
    return f"{error} (line {line + further}, column {column}, in the request that begins here)"


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _elements(text: str, position: int) -> Iterator[tuple[int, Members | str | int]]:
    """Yield the start and the value of each element of the array at a position, then its end."""
    position = _skip(text, position + 1)
    if text.startswith("]", position):
        yield position, position + 1
        return
    while True:
        start = position
        found, position = _value(text, position)
        yield start, found
        position = _skip(text, position)
        if text.startswith("]", position):
            yield position, position + 1
            return
        if not text.startswith(",", position):
            raise JsonTextError("not valid JSON: ',' or ']' is missing", position)
        position = _skip(text, position + 1)


def _value(text: str, position: int) -> tuple[Members | str, int]:
    """Return the members of an object, or what is wrong with it, and the end of the value."""
    if not text.startswith("{", position):
        _, end = _parse(text, position, _LENIENT)
        return f"a request must be a JSON object (got {shortened(text[position:end])})", end
    members: Members = {}
    problem = ""
    position = _skip(text, position + 1)
    while not text.startswith("}", position):
        if not text.startswith('"', position):
            raise JsonTextError("not valid JSON: a key in double quotes is missing", position)
        key, position = _parse(text, position, _STRICT)
        position = _skip(text, position)
        if not text.startswith(":", position):
            raise JsonTextError("not valid JSON: ':' is missing after a key", position)
        start = _skip(text, position + 1)
        try:
            value, position = _parse(text, start, _LENIENT if key in _SENT else _STRICT)
        except _ContentError as error:
            problem = problem or f"{key}: {error}"
            value, position = _parse(text, start, _LENIENT)
        if key in members:
            problem = problem or f"key {key!r} is given twice; keep one"
        members[key] = Member(value, text[start:position])
        position = _skip(text, position)
        if text.startswith(",", position):
            position = _skip(text, position + 1)
            if text.startswith("}", position):
                raise JsonTextError("not valid JSON: a key is missing after ','", position)
        elif not text.startswith("}", position):
            raise JsonTextError("not valid JSON: ',' or '}' is missing", position)
    return problem or members, position + 1


class _ContentError(ValueError):
    """Valid JSON that is refused for what it contains."""


def _parse(text: str, position: int, decoder: json.JSONDecoder) -> tuple[Any, int]:
    try:
        return decoder.raw_decode(text, position)
    except json.JSONDecodeError as error:
        problem = error.msg[:1].lower() + error.msg[1:]
        raise JsonTextError(f"not valid JSON: {problem}", error.pos) from None
    except RecursionError:
        raise JsonTextError("the JSON is nested too deeply", position) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _ContentError(f"key {key!r} is given twice; keep one")
        found[key] = value
    return found


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # Python limits the digits.
        raise _ContentError(f"a number has {len(text)} digits, which is too many") from None


def _refuse_constant(name: str) -> Any:
    raise _ContentError(f"{name} is not a JSON number")


_STRICT = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_integer, parse_constant=_refuse_constant
)
_LENIENT = json.JSONDecoder(parse_int=float)


def shown(value: Any) -> str:
    """Return a value as short JSON text for a message."""
    try:
        text = json.dumps(value)
    except (RecursionError, ValueError):
        text = "…"
    return shortened(text)


def shortened(text: str) -> str:
    """Return the beginning of a text for a message."""
    return text if len(text) <= 60 else f"{text[:57]}…"
