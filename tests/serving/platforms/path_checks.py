"""A check of paths, as that of the service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def refuse_outside(root: Path) -> Callable[[Path], None]:
    """Return a check that refuses paths outside a folder."""

    def check(path: Path) -> None:
        if not path.resolve().is_relative_to(root):
            raise PermissionError(f"{path} is outside")

    return check
