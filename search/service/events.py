"""The events of a job, as lines of a growing file. Only reads and writes files."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.formats import EVENTS_VERSION, check_version
from search.study.observer import StudyEvent


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
        """Append an event."""
        event = {
            "format_version": EVENTS_VERSION,
            "kind": kind,
            "time_s": round(time.time(), 3),
            "data": data,
        }
        with self.path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(json.dumps(event) + "\n")

    def read(self, after: int = 0, max_bytes: int = 1 << 20) -> list[LoggedEvent]:
        """Return the complete events after an id.

        Args:
            after: an event's id; 0 for all.
            max_bytes: bytes to read at most; must be more than one event has.

        Raises:
            RunError: the file has another format version.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(after)
                text = file.read(max_bytes)
        except OSError:
            return []
        return self._parse(text, after)

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
        for line in text.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            offset += len(line)
            event = json.loads(line)
            check_version(event, EVENTS_VERSION, self.path)
            events.append(LoggedEvent(offset, event["kind"], event["time_s"], event["data"]))
        return events
