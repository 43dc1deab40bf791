"""Requests, and what a correct answer to each is."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

from loadgen.errors import PayloadError
from loadgen.schedule import Share


@dataclass(frozen=True)
class Payload:
    """One request. A correct answer has status 200.

    Attributes:
        contains: a substring of the answer's body; None for any body.
        matches: a regular expression that the answer's body must match; None for any body.
    """

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    contains: str | None = None
    matches: str | None = None

    def accepts(self, answer: bytes) -> bool:
        """Return whether this body is a correct answer."""
        if self.contains is None and self.matches is None:
            return True
        text = answer.decode(errors="replace")
        if self.contains is not None and self.contains not in text:
            return False
        return self.matches is None or re.search(self.matches, text) is not None


_KEYS = {"body", "file", "content_type", "headers", "expect"}


def read_payloads(path: Path) -> list[Payload]:
    """Read a requests file of JSON lines, one request per line.

    Each line has `body` (a JSON object, array or string) or `file` (a path relative to the
    requests file), and optionally `content_type`, `headers` and
    `expect: {"contains": …, "matches": …}`.

    Raises:
        PayloadError: the file is missing or empty, or a line is not such a request.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PayloadError(f"requests file {path} cannot be read: {error}") from None
    payloads = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                payloads.append(_payload(json.loads(line), path.parent))
            except (ValueError, OSError, TypeError, AttributeError) as error:
                raise PayloadError(f"requests file {path}, line {number}: {error}") from None
    if not payloads:
        raise PayloadError(f"requests file {path} contains no requests")
    return payloads


def _payload(data: Mapping[str, Any], folder: Path) -> Payload:
    if unknown := set(data) - _KEYS:
        raise ValueError(f"unknown key {sorted(unknown)[0]!r}; known keys are {sorted(_KEYS)}")
    if ("body" in data) == ("file" in data):
        raise ValueError("exactly one of 'body' and 'file' is required")
    if "file" in data:
        body, kind = (folder / data["file"]).read_bytes(), "application/octet-stream"
    elif isinstance(data["body"], str):
        body, kind = data["body"].encode(), "text/plain"
    else:
        body, kind = json.dumps(data["body"]).encode(), "application/json"
    expect = data.get("expect", {})
    if unknown := set(expect) - {"contains", "matches"}:
        raise ValueError(
            f"unknown key expect.{sorted(unknown)[0]}; known keys are contains, matches"
        )
    if expect.get("matches") is not None:
        try:
            re.compile(expect["matches"])
        except re.error as error:
            raise ValueError(f"expect.matches is not a regular expression: {error}") from None
    headers = {"Content-Type": str(data.get("content_type", kind)), **data.get("headers", {})}
    return Payload(body, headers, expect.get("contains"), expect.get("matches"))


def mix(payloads: Sequence[Payload], share: Share, seed: int = 0) -> Iterator[Payload]:
    """Yield an endless, seeded mix of the payloads, the same for every window."""
    if len(payloads) == 1:
        yield from repeat(payloads[0])
    generator = random.Random(f"{seed}/{share.index}/{share.count}")
    while True:
        yield from generator.sample(payloads, len(payloads))
