"""Differences between two runs or two specifications."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from search.study.run_folder import Run

#: Sections of a run that its figures depend on.
COMPARED_SECTIONS = ("host", "versions", "placement", "model", "serving", "goal", "load", "sweep")

#: URLs that may contain a secret; their values are not shown.
_SECRET = ("output.storage", "output.mlflow", "notify")


def differences(earlier: Run, run: Run, sections: Sequence[str] = COMPARED_SECTIONS) -> list[str]:
    """Return the differences between two runs, each as "path: old → new"."""
    before = {**earlier.recorded(), **earlier.specified()}
    now = {**run.recorded(), **run.specified()}
    return [
        f"{path}: {change}"
        for name in sections
        for path, change in changes({name: before.get(name)}, {name: now.get(name)}).items()
    ]


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """Return the differences between two specifications, "old → new" by path."""
    old, new = flat(before), flat(now)
    return {
        path: "another one"
        if path in _SECRET
        else f"{old.get(path, 'nothing')} → {new.get(path, 'nothing')}"
        for path in sorted({*old, *new})
        if old.get(path) != new.get(path)
    }


def flat(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings as one level, with the keys joined by dots."""
    flattened: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, Mapping):
            flattened |= {f"{name}.{key}": entry for key, entry in flat(value).items()}
        else:
            flattened[name] = value
    return flattened
