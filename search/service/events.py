"""The events of a job, as lines of a growing file. Only reads and writes files."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.formats import EVENTS_VERSION, check_version
from search.study.json_lines import append_line, complete_lines
from search.study.observer import StudyEvent

_FIELDS: dict[str, Any] = {"kind": str, "time_s": int | float, "data": dict}


@dataclass(frozen=True)
class LoggedEvent:
    """One event in the file.

    Attributes:
        id: the offset at which the line ends; reading continues there.
        time_s: seconds since 1970.
    """

    id: int
    kind: str
    time_s: float
    data: Mapping[str, Any]


class EventLog:
    """The file of events; several processes may append to it."""

    def __init__(self, path: Path):
        self.path = path

    def record(self, event: StudyEvent) -> None:
        """Append an event of a run."""
        self.append(event.kind, **event.data)

    def append(self, kind: str, **data: Any) -> None:
        """Append an event, and sync it to disk.

        Raises:
            OSError: the event cannot be written; nothing of it stays in the file.
        """
        event = {"kind": kind, "time_s": round(time.time(), 3), "data": data}
        append_line(self.path, EVENTS_VERSION, event)

    def read(self, after: int = 0, max_bytes: int = 1 << 20) -> list[LoggedEvent]:
        """Return complete events after an id; damaged lines are left out.

        Args:
            after: an event's id; 0 for all.
            max_bytes: bytes to read at once; more are read only until the first event is found.

        Raises:
            RunError: the file has another format version.
        """
        try:
            with self.path.open("rb") as file:
                while True:
                    file.seek(after)
                    text = file.read(max_bytes)
                    if events := self._parse(text, after):
                        return events
                    if len(text) < max_bytes:
                        return []
                    # Only damaged lines, or a line that is longer.
                    newline = text.rfind(b"\n")
                    after, max_bytes = after + newline + 1, max_bytes * (1 if newline >= 0 else 2)
        except OSError:
            return []

    def is_event_id(self, offset: int) -> bool:
        """Return whether this is an event's id, or 0."""
        try:
            if not 0 < offset <= self.path.stat().st_size:
                return offset == 0
            with self.path.open("rb") as file:
                file.seek(offset - 1)
                return file.read(1) == b"\n"
        except OSError:
            return False

    def tail(self, max_bytes: int = 1 << 16) -> list[LoggedEvent]:
        """Return the last events that fit in `max_bytes`."""
        try:
            size = self.path.stat().st_size
        except OSError:
            return []
        start = max(size - max_bytes, 0)
        with self.path.open("rb") as file:
            file.seek(start)
            partial = len(file.readline()) if start else 0
            return self._parse(file.read(), start + partial)

    def _parse(self, text: bytes, offset: int) -> list[LoggedEvent]:
        """Return the complete lines of a text that begins at this offset of the file."""
        events = []
        for line, event in complete_lines(text):
            offset += len(line)
            if isinstance(event, dict) and event.keys() & {"format_version", "kind"}:
                check_version(event, EVENTS_VERSION, self.path)
                if all(isinstance(event.get(name), kind) for name, kind in _FIELDS.items()):
                    logged = LoggedEvent(offset, event["kind"], event["time_s"], event["data"])
                    events.append(logged)
        return events
