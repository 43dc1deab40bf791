"""Which process it was: a pid alone is used again, and times by the clock move when it is set."""

from __future__ import annotations

from pathlib import Path


def identity(pid: int) -> str:
    """A process's pid and its start in clock ticks since the boot, as the supervisor notes them.

    Raises:
        OSError: there is no such process.
    """
    return f"{pid} {_stat(pid)[19]}"


def is_alive(noted: str) -> bool:
    """Whether the very process of an identity still runs.

    Raises:
        ValueError: the text is no identity.
    """
    pid, started = noted.split()
    try:
        found = _stat(int(pid))
    except OSError:
        return False
    # Where no one reaps it, a killed process keeps its entry as a zombie.
    return found[0] != "Z" and found[19] == started


def _stat(pid: int) -> list[str]:
    """The fields of proc(5)'s stat from the third on; the second may hold blanks."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
