"""The text that the bundled tokeniser learns from: Python's own standard library."""

from __future__ import annotations

import sysconfig
from pathlib import Path

SIZE_BYTES = 1_500_000


def modules() -> list[Path]:
    """The library's modules in the order of their names, until they hold SIZE_BYTES.

    Names that begin with an underscore are left out: some are written when Python is built.

    Raises:
        FileNotFoundError: this Python came without its sources.
    """
    library = Path(sysconfig.get_path("stdlib"))
    chosen: list[Path] = []
    size_bytes = 0
    for path in sorted(library.glob("[!_]*.py")):
        if size_bytes >= SIZE_BYTES:
            return chosen
        chosen.append(path)
        size_bytes += path.stat().st_size
    raise FileNotFoundError(f"{library} does not hold the sources of Python's standard library")
