"""Limits of YAML that others wrote: number of values, with aliases expanded, depth, long numbers.

PyYAML limits none of them. A few lines of nested aliases expand to more than any memory, and a long
sexagesimal number (`1:1:…`) takes minutes to read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml

T = TypeVar("T")

#: That of libyaml, ten times as fast, if PyYAML was built with it.
_FAST: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_VALUES = 30_000
_MAX_DEPTH = 100
_MAX_DIGITS = 300
_NUMBER = re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|[0-9][0-9_:.]*)")


class LimitError(yaml.MarkedYAMLError):
    """A text that exceeds a limit; `problem` states which."""


@dataclass
class _Size:
    """The size of a value with its aliases expanded.

    Attributes:
        values: it and the values in it.
        depth: levels of nesting below it.
        anchor: its name for aliases.
    """

    values: int = 1
    depth: int = 0
    anchor: str | None = None

    def add(self, inner: _Size) -> None:
        """Add a value that is in this one."""
        self.values += inner.values
        self.depth = max(self.depth, inner.depth + 1)


def check_yaml(text: str | bytes, allow_aliases: bool = True) -> None:
    """Check a text before it is loaded.

    Raises:
        YAMLError: it is not YAML.
        LimitError: it exceeds a limit, or has an alias that is not allowed.
    """
    _read_fast(lambda loader: _check(text, allow_aliases, loader))


def _read_fast(read: Callable[[Any], T]) -> T:
    """Read with the fast loader, and again with PyYAML's own if that one refuses the text.

    PyYAML reads the characters that JSON escapes as two halves, and its errors name the line.
    """
    try:
        return read(_FAST)
    except LimitError:
        raise
    except yaml.YAMLError:
        return read(yaml.SafeLoader)


def _check(text: str | bytes, allow_aliases: bool, loader: Any) -> None:
    anchors: dict[str, _Size] = {}
    open_values = [_Size()]
    for event in yaml.parse(text, loader):
        size: _Size | None = None
        if isinstance(event, yaml.AliasEvent):
            if not allow_aliases:
                raise _error("aliases (*name) are not allowed: repeat the value instead", event)
            # An undefined one is reported when the text is loaded.
            size = anchors.get(event.anchor or "", _Size())
            if any(value.anchor == event.anchor for value in open_values):
                raise _error(f"*{event.anchor} contains itself", event)
        elif isinstance(event, yaml.ScalarEvent):
            size = _Size(anchor=event.anchor)
            if len(event.value) > _MAX_DIGITS and event.implicit[0]:
                _check_number(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_values.append(_Size(anchor=event.anchor))
        elif isinstance(event, yaml.CollectionEndEvent):
            size = open_values.pop()
        if size is not None:
            if size.anchor is not None:
                anchors[size.anchor] = size
            open_values[-1].add(size)
        if len(open_values) + open_values[-1].depth > _MAX_DEPTH:
            raise _error(f"values are nested more than {_MAX_DEPTH} levels deep", event)
        if sum(value.values for value in open_values) > _MAX_VALUES:
            raise _error(f"there are more than {_MAX_VALUES} values", event)


def _check_number(event: yaml.ScalarEvent) -> None:
    if _NUMBER.fullmatch(event.value):
        raise _error(f"a number has {len(event.value)} characters", event)


def _error(problem: str, event: yaml.Event) -> LimitError:
    mark: Any = event.start_mark
    return LimitError(problem=problem, problem_mark=mark)


@contextmanager
def reporting_values() -> Iterator[None]:
    """Report values that PyYAML cannot construct, such as 2026-13-45 or `!!bool x`.

    Raises:
        YAMLError: instead of the errors of the constructors.
    """
    try:
        yield
    except (ValueError, LookupError, AttributeError) as error:
        raise yaml.YAMLError(f"a value is not of its type: {error}") from None


def load_yaml(text: str | bytes) -> Any:
    """Return the data in a text.

    Raises:
        YAMLError: it is not YAML, or exceeds a limit.
    """
    check_yaml(text)
    with reporting_values():
        return _read_fast(lambda loader: yaml.load(text, loader))


def load_documents(text: str | bytes) -> Iterator[Any]:
    """Yield the data of each document in a text.

    Raises:
        YAMLError: it is not YAML, or exceeds a limit.
    """
    check_yaml(text)
    with reporting_values():
        documents = _read_fast(lambda loader: list(yaml.load_all(text, loader)))
    yield from documents
