"""The requests files in docs/requests.md."""

from __future__ import annotations

import re
from pathlib import Path

from loadgen.payloads import Payload, read_payloads

PAGE = Path(__file__).parents[1] / "docs" / "requests.md"
PICTURE = b"\xff\xd8\xff\xe0 a picture \x00\r\n--\r\n"


def documented_requests(folder: Path) -> dict[str, list[Payload]]:
    """Return the payloads of each example by the heading above it.

    Args:
        folder: receives the files that the examples name, and the examples.
    """
    (folder / "cat.jpg").write_bytes(PICTURE)
    found: dict[str, list[Payload]] = {}
    heading = ""
    for match in re.finditer(r"^#+ ([^\n]+)$|^```json\n(.*?)^```", PAGE.read_text(), re.M | re.S):
        heading = match[1] or heading
        if match[2]:
            path = folder / "example.jsonl"
            path.write_text(match[2])
            found.setdefault(heading, []).extend(read_payloads(path))
    return found
