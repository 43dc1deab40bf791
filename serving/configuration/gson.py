"""JSON as Gson reads it, TorchServe's parser, with the place of each value in the text.

Gson's lenient mode allows single quotes, names and texts without quotes, `=` or `=>` for a colon,
`;` for a comma, and comments.
Source: com.google.gson.stream.JsonReader of 2.10, and its adapters for maps and numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

_SPACE = re.compile(r"(?:[ \t\r\n]+|/\*.*?\*/|(?://|#)[^\r\n]*)*", re.DOTALL)
#: Spaces that may follow the document: Gson is strict there.
_END_SPACE = re.compile(r"[ \t\r\n]*")
_WORD = re.compile(r"[^ \t\f\r\n/\\;#={}\[\]:,]+")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_LITERALS = {"true": True, "false": False, "null": None}
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
#: Gson skips these characters in front of a document.
_PREFIX = ")]}'\n"
_INT_BITS = 32
#: 2 ** 32 divides 10 ** 32, and every higher power.
_MAX_EXPONENT = 400


class GsonError(ValueError):
    """The text is not what Gson reads.

    Attributes:
        position: index of the first character that is wrong; the length of the text if it ends
            too early.
    """

    def __init__(self, position: int):
        super().__init__(f"no JSON from character {position} on")
        self.position = position


class RepeatedName(GsonError):
    """A map has a name twice.

    Attributes:
        name: the name.
    """

    def __init__(self, position: int, name: str):
        super().__init__(position)
        self.name = name


class Number(str):
    """The text of a number; Gson keeps it as it is written."""

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Value:
    """A value and its place.

    Attributes:
        data: a text, a `Number`, a boolean, None, a list of values, or a list of `Member`.
        source: the document.
        start, end: the part of the document that it takes.
        is_object: whether the data are members.
    """

    data: Any
    source: str = field(repr=False, compare=False)
    start: int
    end: int
    is_object: bool = False

    @property
    def text(self) -> str:
        """The value as it is written."""
        return self.source[self.start : self.end]

    def member(self, name: str) -> Value | None:
        """Return the value under a name; the last, if the object has several; else None."""
        members = self.data if self.is_object else []
        return next((m.value for m in reversed(members) if m.name == name), None)

    def plain(self) -> Any:
        """Return the value as Python's json module does, except that a `Number` stays a text."""
        if self.is_object:
            return {member.name: member.value.plain() for member in self.data}
        return [item.plain() for item in self.data] if isinstance(self.data, list) else self.data


@dataclass(frozen=True)
class Member:
    """A name in an object, and its value."""

    name: str
    value: Value


def parse(text: str) -> Value:
    """Parse a document; an empty one is null.

    Raises:
        GsonError: Gson would refuse the text.
    """
    start = len(_PREFIX) if text.startswith(_PREFIX) else 0
    if _after_space(text, start) == len(text):
        return Value(None, text, start, start)
    try:
        value = _value(text, start)
    except RecursionError:
        raise GsonError(start) from None
    end = _END_SPACE.match(text, value.end)
    assert end is not None
    if end.end() < len(text):
        raise GsonError(end.end())
    return value


def as_map(value: Value) -> Iterator[Member]:
    """Yield the members of a map: an object without a repeated name, or an array of pairs.

    Raises:
        GsonError: Gson would read no map.
    """
    names = set()
    for member in _map_members(value):
        if member.name in names:
            raise RepeatedName(member.value.start, member.name)
        names.add(member.name)
        yield member


def _map_members(value: Value) -> Iterator[Member]:
    if value.is_object:
        yield from value.data
        return
    if not isinstance(value.data, list):
        raise GsonError(value.start)
    for pair in value.data:
        if pair.is_object or not isinstance(pair.data, list) or len(pair.data) != 2:
            raise GsonError(pair.start)
        name, item = pair.data
        if not isinstance(name.data, str | bool):
            raise GsonError(name.start)
        yield Member(name.data if isinstance(name.data, str) else str(name.data).lower(), item)


def to_int(number: Number) -> int:
    """Return a number as Java's `int`: it is cut off, and overflows.

    >>> to_int(Number("8.7")), to_int(Number("4294967297"))
    (8, 1)
    """
    try:
        if abs(Decimal(number).adjusted()) > _MAX_EXPONENT:
            return 0
    except InvalidOperation:  # An exponent of more than 18 digits.
        return 0
    whole: int = int(Decimal(number)) % (1 << _INT_BITS)
    half = 1 << (_INT_BITS - 1)
    return whole - 2 * half if whole >= half else whole


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None
    return match.end()


def _character(text: str, position: int) -> str:
    """Return the character; an empty text at the end."""
    return text[position : position + 1]


def _value(text: str, position: int) -> Value:
    start = _after_space(text, position)
    character = _character(text, start)
    if character == "{":
        return _object(text, start)
    if character == "[":
        return _array(text, start)
    if character and character in "\"'":
        data, end = _quoted(text, start)
        return Value(data, text, start, end)
    word = _WORD.match(text, start)
    if word is None:
        raise GsonError(start)
    if word[0].lower() in _LITERALS:
        return Value(_LITERALS[word[0].lower()], text, start, word.end())
    is_number = _NUMBER.fullmatch(word[0]) is not None
    return Value(Number(word[0]) if is_number else word[0], text, start, word.end())


def _object(text: str, start: int) -> Value:
    members: list[Member] = []
    position = _after_space(text, start + 1)
    while True:
        if _character(text, position) == "}" and not members:
            return Value(members, text, start, position + 1, is_object=True)
        name, position = _name(text, position)
        position = _after_space(text, position)
        if _character(text, position) == "=":
            position += 2 if text.startswith("=>", position) else 1
        elif _character(text, position) == ":":
            position += 1
        else:
            raise GsonError(position)
        value = _value(text, position)
        members.append(Member(name, value))
        position = _after_space(text, value.end)
        if _character(text, position) == "}":
            return Value(members, text, start, position + 1, is_object=True)
        position = _after_space(text, _after_separator(text, position))


def _name(text: str, position: int) -> tuple[str, int]:
    character = _character(text, position)
    if character and character in "\"'":
        return _quoted(text, position)
    word = _WORD.match(text, position)
    if word is None:
        raise GsonError(position)
    return word[0], word.end()


def _array(text: str, start: int) -> Value:
    items: list[Value] = []
    position = _after_space(text, start + 1)
    if _character(text, position) == "]":
        return Value(items, text, start, position + 1)
    while True:
        if (character := _character(text, position)) and character in ",;]":
            items.append(Value(None, text, position, position))  # Nothing is null.
        else:
            items.append(_value(text, position))
            position = _after_space(text, items[-1].end)
        if _character(text, position) == "]":
            return Value(items, text, start, position + 1)
        position = _after_space(text, _after_separator(text, position))


def _after_separator(text: str, position: int) -> int:
    if (character := _character(text, position)) and character in ",;":
        return position + 1
    raise GsonError(position)


def _quoted(text: str, start: int) -> tuple[str, int]:
    """Return a text in quotation marks, and the index behind it."""
    characters: list[str] = []
    position = start + 1
    while (character := _character(text, position)) != text[start]:
        position += 1
        if character == "\\":
            escaped = _character(text, position)
            position += 1
            if escaped == "u":
                code = text[position : position + 4]
                if not re.fullmatch("[0-9a-fA-F]{4}", code):
                    raise GsonError(position)
                character = chr(int(code, 16))
                position += 4
            elif escaped and escaped in "'\"\\/\n":
                character = escaped
            elif escaped in _ESCAPES:
                character = _ESCAPES[escaped]
            else:
                raise GsonError(min(position - 1, len(text)))
        elif not character:
            raise GsonError(len(text))
        characters.append(character)
    # A character above U+FFFF is two escapes.
    joined = "".join(characters).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return joined, position + 1
