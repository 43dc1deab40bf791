"""A request, and what a correct answer to it is."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

from loadgen.errors import PayloadError
from loadgen.payloads.http_syntax import (
    METHODS_WITH_BODY,
    check_headers,
    check_method,
    check_status,
    check_target,
)
from loadgen.payloads.json_pointer import MISSING, check_pointer, is_same, resolve


@dataclass(frozen=True)
class Payload:
    """One request, and the conditions for a correct answer.

    Attributes:
        headers: their names differ in more than case. Headers that frame the body are not allowed.
        contains: a substring of the answer's body; None for any body.
        matches: a regular expression that the answer's body must match; None for any body.
        path: the request target below the server's root, such as "/predictions/NAME?a=1"; None for
            the path of the URL that is measured.
        method: the HTTP method.
        status: the status codes of a correct answer.
        fields: values of an answer in JSON, by JSON Pointer (RFC 6901).
        field_matches: regular expressions that fields of an answer in JSON must match, by JSON
            Pointer. A field that is not a string is matched as JSON text.
        weight: the payload's share in a mix, relative to the other payloads.
        group: the group of a mix that the payload belongs to, such as a model. The results of each
            group are counted separately too; empty for none.

    Raises:
        PayloadError: the request cannot be sent as it is described.
    """

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    contains: str | None = None
    matches: str | None = None
    path: str | None = None
    method: str = "POST"
    status: tuple[int, ...] = (200,)
    fields: Mapping[str, Any] = field(default_factory=dict)
    field_matches: Mapping[str, str] = field(default_factory=dict)
    weight: float = 1.0
    group: str = ""

    def __post_init__(self) -> None:
        try:
            check_method(self.method)
            check_headers(self.headers)
            check_status(self.status)
            if self.path is not None:
                check_target(self.path)
            for pointer in (*self.fields, *self.field_matches):
                check_pointer(pointer)
            if not (math.isfinite(self.weight) and self.weight > 0):
                raise ValueError(f"weight must be a number above 0 (got {self.weight})")
            _ = self._patterns
        except re.error as error:
            raise PayloadError(f"{error.pattern!r} is not a regular expression: {error}") from None
        except ValueError as error:
            raise PayloadError(str(error)) from None

    @property
    def content(self) -> bytes | None:
        """The body to send; None if the request has none, which differs from an empty one."""
        return self.body if self.body or self.method in METHODS_WITH_BODY else None

    def with_headers(self, headers: Mapping[str, str]) -> Self:
        """Return a copy with these headers instead of those of the same names."""
        names = {name.lower() for name in headers}
        kept = {name: text for name, text in self.headers.items() if name.lower() not in names}
        return replace(self, headers={**kept, **headers})

    def accepts(self, answer: bytes) -> bool:
        """Return whether this body is a correct answer."""
        if self._accepts_any:
            return True
        pattern, field_patterns = self._patterns
        if self.contains is not None or pattern is not None:
            text = answer.decode(errors="replace")
            if self.contains is not None and self.contains not in text:
                return False
            if pattern is not None and pattern.search(text) is None:
                return False
        if not self.fields and not field_patterns:
            return True
        try:
            document = json.loads(answer)
        except (ValueError, RecursionError):
            return False
        for pointer, value in self.fields.items():
            if not is_same(resolve(document, pointer), value):
                return False
        for pointer, field_pattern in field_patterns.items():
            found = resolve(document, pointer)
            if found is MISSING or field_pattern.search(_as_text(found)) is None:
                return False
        return True

    @cached_property
    def _accepts_any(self) -> bool:
        return not (self.contains or self.matches or self.fields or self.field_matches)

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str] | None, dict[str, re.Pattern[str]]]:
        """Compiled here, because the cache of `re` is smaller than a large requests file."""
        whole = None if self.matches is None else re.compile(self.matches)
        return whole, {key: re.compile(text) for key, text in self.field_matches.items()}


def _as_text(found: Any) -> str:
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
