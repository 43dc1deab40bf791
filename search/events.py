"""What happens in a run, as lines of a file that others follow while it grows. Pure file work."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.result import Seen, Task, TrialResult
from search.text import first_line


@dataclass(frozen=True)
class Event:
    """One line: its place in the file, when, of what kind, and its data.

    id is the offset at which the line ends: whoever names it goes on behind it.
    """

    id: int
    kind: str
    time_s: float
    data: Mapping[str, Any]


class EventLog:
    """The file; several processes may append to it."""

    def __init__(self, path: Path):
        self.path = path

    def append(self, kind: str, **data: Any) -> None:
        """Add an event, on the disk when this returns."""
        line = json.dumps({"kind": kind, "time_s": round(time.time(), 3), "data": data})
        with self.path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(line + "\n")

    def read(self, after: int = 0, most: int = 1 << 20) -> list[Event]:
        """The events behind this place, as far as they are whole.

        Args:
            after: an event's id; 0 for all.
            most: bytes that are read at once; more than one event's.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(after)
                text = file.read(most)
        except OSError:
            return []
        return _events(text, after)

    def is_end(self, place: int) -> bool:
        """Whether this is an event's id, or 0."""
        try:
            if not 0 < place <= self.path.stat().st_size:
                return place == 0
            with self.path.open("rb") as file:
                file.seek(place - 1)
                return file.read(1) == b"\n"
        except OSError:
            return False

    def tail(self, most: int = 1 << 16) -> list[Event]:
        """The last events, as many as fit in so many bytes."""
        try:
            size = self.path.stat().st_size
        except OSError:
            return []
        start = max(size - most, 0)
        with self.path.open("rb") as file:
            file.seek(start)
            partial = len(file.readline()) if start else 0
            return _events(file.read(), start + partial)


def _events(text: bytes, at: int) -> list[Event]:
    """The whole lines of a text that begins at this place of the file."""
    found = []
    for line in text.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        at += len(line)
        told = json.loads(line)
        found.append(Event(at, told["kind"], told["time_s"], told["data"]))
    return found


class Recorder:
    """A run's watcher that writes events; phases once, however often they are told."""

    def __init__(self, log: EventLog):
        self._log = log
        self._phase: tuple[int, str, float] | None = None
        self._is_stopping = False

    def started(self, task: Task) -> None:
        """See `Watcher.started`."""
        self._log.append("trial", number=task.number, why=task.kind, settings=task.config.to_dict())

    def phase(self, number: int, name: str, rate_rps: float) -> None:
        """See `Watcher.phase`."""
        if self._phase != (now := (number, name, rate_rps)):
            self._phase = now
            self._log.append("phase", number=number, name=name, rate_rps=rate_rps)

    def window(self, number: int, seen: Seen) -> None:
        """See `Watcher.window`."""
        self._log.append("window", number=number, **vars(seen))

    def finished(self, result: TrialResult, best: TrialResult | None) -> None:
        """See `Watcher.finished`."""
        number = best.number if best else None
        self._log.append("result", best=number, **summary(result))

    def confirming(self, number: int, task: Task) -> None:
        """See `Watcher.confirming`."""
        self._log.append("round", round=number, number=task.number)

    def confirmed(self, number: int, result: TrialResult) -> None:
        """See `Watcher.confirmed`."""
        self._log.append("confirmed", round=number, **summary(result))

    def stopping(self) -> None:
        """See `Watcher.stopping`."""
        if not self._is_stopping:
            self._is_stopping = True
            self._log.append("stopping")


def summary(result: TrialResult) -> dict[str, Any]:
    """What a list of trials shows of one."""
    return {
        "number": result.number,
        "why": result.kind,
        "state": result.state,
        "settings": result.config.to_dict(),
        "sustained_rps": result.sustained_rps,
        "upper_rps": result.upper_rps,
        "capacity_rps": result.capacity_rps,
        "p99_s": result.p99_s,
        "duration_s": result.duration_s,
        "cause": first_line(result.cause),
    }
