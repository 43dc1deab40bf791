"""Change values in a config.properties, and leave every other character as it is."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import javaproperties

from serving.configuration import gson
from serving.configuration.config import escape_property, property_value

_LINE_END = re.compile(r"(\r\n|\r|\n)\Z")
_CONTINUED = re.compile(r"\\(?:\r\n|\r|\n)[ \t\f]*")
_TOKEN = re.compile(r"\\u[0-9a-fA-F]{4}|\\.|.", re.DOTALL)
_ESCAPES = {"f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_BLANK = " \t\f"


@dataclass(frozen=True)
class EntryChange:
    """Keys to set in one model's entry, in the JSON of `models` or `model_snapshot`.

    Attributes:
        path: of the entry, by the names of the objects.
        values: new values by key.
        new_entry: what a new entry has beside them.
    """

    path: tuple[str, ...]
    values: Mapping[str, Any]
    new_entry: Mapping[str, Any]


def edit_properties(
    text: str,
    lines: Mapping[str, str],
    entries: Mapping[str, Sequence[EntryChange]] = MappingProxyType({}),
) -> str:
    """Return a config.properties with some values replaced and all else unchanged.

    Of several lines with one key, the last counts and is changed.

    Args:
        lines: new values by key.
        entries: changes in JSON values by key.
    """
    return "".join(_edited_lines(text, lines, entries))


def _edited_lines(
    text: str,
    lines: Mapping[str, str],
    entries: Mapping[str, Sequence[EntryChange]],
) -> Iterator[str]:
    elements = list(javaproperties.parse(text))
    end, last = "\n", ""
    counted = {
        element.key: element for element in elements if isinstance(element, javaproperties.KeyValue)
    }
    for element in elements:
        last = element.source
        end = match[0] if (match := _LINE_END.search(last)) else end
        if not isinstance(element, javaproperties.KeyValue) or counted[element.key] is not element:
            yield last
        elif element.key in entries:
            yield _Value(last).with_entries(entries[element.key])
        elif _is_changed(element, lines):
            yield _Value(last).replaced(element.key, lines[element.key])
        else:
            yield last
    added = {
        **lines,
        **{key: _dumped(_with_entries({}, changes)) for key, changes in entries.items()},
    }
    added = {key: value for key, value in added.items() if key not in counted}
    body = last.removesuffix(end)
    is_continued = (
        bool(elements)
        and isinstance(elements[-1], javaproperties.KeyValue)
        and (len(body) - len(body.rstrip("\\"))) % 2 == 1
    )
    if added and last:
        yield end * ((not _LINE_END.search(last)) + is_continued)
    for key, value in added.items():
        yield f"{key}={property_value(key, value)}{end}"


def _is_changed(element: javaproperties.KeyValue, lines: Mapping[str, str]) -> bool:
    # The command torchserve may read another value of vmargs than Java.
    return element.key in lines and (element.key == "vmargs" or element.value != lines[element.key])


class _Value:
    """The value in the lines of one property.

    Attributes:
        text: the value.
        source: the lines, with their ends.
    """

    def __init__(self, source: str):
        self.source = source
        tokens = list(_tokens(source))
        key_end = next(
            (i for i, (token, _) in enumerate(tokens) if token in ("=", ":", *_BLANK)), len(tokens)
        )
        start = key_end
        seen_separator = False
        while start < len(tokens) and (
            tokens[start][0] in _BLANK or (tokens[start][0] in "=:" and not seen_separator)
        ):
            seen_separator = seen_separator or tokens[start][0] in "=:"
            start += 1
        self._tokens = tokens[start:]
        body = source.removesuffix(match[0] if (match := _LINE_END.search(source)) else "")
        self._end = self._tokens[-1][1] + len(self._tokens[-1][0]) if self._tokens else len(body)
        self.text = "".join(_unescaped(token) for token, _ in self._tokens)

    def replaced(self, key: str, value: str) -> str:
        """Return the lines with another value."""
        rest = self.source[self._end :]
        if key == "vmargs":  # The command torchserve reads no other separator.
            return f"{key}={value}{rest}"
        start = self._tokens[0][1] if self._tokens else self._end
        before = self.source[:start]
        if not self._tokens and not re.search(r"[=:]", before):
            before += "="
        return before + property_value(key, value) + rest

    def with_entries(self, changes: Sequence[EntryChange]) -> str:
        """Return the lines with changed entries in their JSON."""
        expected = _with_entries(gson.parse(self.text).plain(), changes)
        edits: list[tuple[int, int, str]] = []
        for change in changes:
            edits += _edits(gson.parse(self.text), change)
        edited = self._edited(edits)
        with contextlib.suppress(gson.GsonError):
            if gson.parse(_Value(edited).text).plain() == _as_numbers(expected):
                return edited
        # A form that cannot be edited in its place, such as a map that is written as an array.
        start = self._tokens[0][1] if self._tokens else self._end
        return self.source[:start] + escape_property(_dumped(expected)) + self.source[self._end :]

    def _edited(self, edits: Sequence[tuple[int, int, str]]) -> str:
        source = self.source
        # An insertion behind a replaced value comes first.
        for start, end, text in sorted(edits, key=lambda edit: edit[:2], reverse=True):
            first = self._tokens[start][1] if start < len(self._tokens) else self._end
            behind = self._tokens[end - 1][1] + len(self._tokens[end - 1][0]) if end else first
            if start == end:
                first = behind
            source = source[:first] + escape_property(text) + source[behind:]
        return source


def _tokens(source: str) -> Iterator[tuple[str, int]]:
    """Yield each character or escape of a property's line, and its index in the source."""
    body = source.removesuffix(match[0] if (match := _LINE_END.search(source)) else "")
    position = len(body) - len(body.lstrip(_BLANK))
    while position < len(body):
        if continued := _CONTINUED.match(source, position):
            position = continued.end()
            continue
        token = _TOKEN.match(body, position)
        assert token is not None
        yield token[0], position
        position = token.end()


def _unescaped(token: str) -> str:
    if len(token) == 1:
        return "" if token == "\\" else token
    return chr(int(token[2:], 16)) if len(token) == 6 else _ESCAPES.get(token[1], token[1])


def _edits(document: gson.Value, change: EntryChange) -> Iterator[tuple[int, int, str]]:
    """Yield the parts of the document to replace, and their new texts."""
    value = document
    for depth, name in enumerate(change.path):
        if (inner := value.member(name)) is None:
            new: Any = {**change.new_entry, **change.values}
            for outer in reversed(change.path[depth + 1 :]):
                new = {outer: new}
            yield _insertion(value, {name: new})
            return
        value = inner
    added = {}
    for key, number in change.values.items():
        if (old := value.member(key)) is None:
            added[key] = number
        else:
            yield old.start, old.end, _dumped(number)
    if added:
        yield _insertion(value, added)


def _insertion(value: gson.Value, members: Mapping[str, Any]) -> tuple[int, int, str]:
    """Return the edit that adds members to the end of an object, with its kind of spaces."""
    comma = ", " if ", " in value.source else ","
    colon = ": " if '": ' in value.source else ":"
    text = json.dumps(dict(members), separators=(comma, colon))[1:-1]
    if not value.is_object or not value.data:
        return value.start + 1, value.start + 1, text
    last = value.data[-1].value.end
    return last, last, comma + text


def _with_entries(data: Any, changes: Sequence[EntryChange]) -> Any:
    """Return the data of a document with changed entries."""
    for change in changes:
        data = _with_entry(data, change.path, change)
    return data


def _with_entry(data: Any, path: Sequence[str], change: EntryChange) -> dict[str, Any]:
    members = dict(data or {})  # Gson reads an array of pairs as a map, too.
    name, *rest = path
    old = members.get(name)
    if rest:
        return {**members, name: _with_entry(old, rest, change)}
    return {**members, name: {**(old or change.new_entry), **change.values}}


def _dumped(data: Any) -> str:
    return json.dumps(_from_numbers(data), separators=(",", ":"))


def _from_numbers(data: Any) -> Any:
    """Return data of Gson's as data of Python's json module."""
    if isinstance(data, gson.Number):
        return json.loads(data)
    if isinstance(data, dict):
        return {key: _from_numbers(value) for key, value in data.items()}
    return [_from_numbers(item) for item in data] if isinstance(data, list) else data


def _as_numbers(data: Any) -> Any:
    """Return data of Python's json module as data of Gson's."""
    if isinstance(data, int) and not isinstance(data, bool):
        return gson.Number(data)
    if isinstance(data, dict):
        return {key: _as_numbers(value) for key, value in data.items()}
    return [_as_numbers(item) for item in data] if isinstance(data, list) else data
