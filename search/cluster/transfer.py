"""Files between hosts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from search.atomic_files import write_atomically

#: An archive is sent in chunks of this size.
CHUNK_BYTES = 32 << 20


class Inbox:
    """Receives trials' files from other hosts; an actor on the driver's host.

    Args:
        root: the run's folder; nothing is written outside.
    """

    def __init__(self, root: str):
        self._root = Path(root).resolve()

    def deliver(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Write files into a folder of the run.

        Raises:
            ValueError: a file would be outside the run's folder.
        """
        target = Path(folder).resolve()
        for name, content in files.items():
            path = (target / name).resolve()
            if not path.is_relative_to(self._root):
                raise ValueError(f"{path} is not in {self._root}")
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
