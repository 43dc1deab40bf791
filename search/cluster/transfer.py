"""Files between hosts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_PART_BYTES = 32 << 20


class Inbox:
    """Takes the files of trials on other hosts; an actor on the driver's."""

    def __init__(self, root: str):
        self._root = Path(root).resolve()

    def deliver(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Write files into a folder of the run."""
        into = Path(folder).resolve()
        for name, content in files.items():
            path = (into / name).resolve()
            if not path.is_relative_to(self._root):
                raise ValueError(f"{path} is not in {self._root}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def files_of(folder: Path) -> dict[str, bytes]:
    """A trial's files, by their names in its folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
