"""What differs between two runs, or between two specifications."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from search.study.run_folder import Run

#: Parts of a run that its figures depend on.
COMPARED = ("host", "versions", "placement", "model", "serving", "goal", "load", "sweep")


def differences(earlier: Run, run: Run, parts: Sequence[str] = COMPARED) -> list[str]:
    """Return what differs between two runs, as "path: old → new"."""
    before = {**earlier.recorded(), **earlier.specified()}
    now = {**run.recorded(), **run.specified()}
    return [
        f"{path}: {change}"
        for part in parts
        for path, change in changes({part: before.get(part)}, {part: now.get(part)}).items()
    ]


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """Return what differs between two specifications, "old → new" by path."""
    old, new = flat(before), flat(now)
    return {
        path: f"{old.get(path, 'nothing')} → {new.get(path, 'nothing')}"
        for path in sorted({*old, *new})
        if old.get(path) != new.get(path)
    }


def flat(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested data on one level, paths joined by dots."""
    found: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{key}": entry for key, entry in flat(value).items()}
        else:
            found[name] = value
    return found
