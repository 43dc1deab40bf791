"""The training text of the bundled tokenizer: Python's standard library."""

from __future__ import annotations

import sysconfig
from pathlib import Path

SIZE_BYTES = 1_500_000


def modules() -> list[Path]:
    """Return the library's first modules by name, SIZE_BYTES or slightly more in all.

    Names that begin with an underscore are left out, because builds of Python generate some.

    Raises:
        FileNotFoundError: this Python has no sources of its standard library.
    """
    library = Path(sysconfig.get_path("stdlib"))
    chosen: list[Path] = []
    size_bytes = 0
    for path in sorted(library.glob("[!_]*.py")):
        if size_bytes >= SIZE_BYTES:
            return chosen
        chosen.append(path)
        size_bytes += path.stat().st_size
    raise FileNotFoundError(f"{library} has too few sources of Python's standard library")
