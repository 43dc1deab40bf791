"""Identity of a process: its pid and its start in clock ticks since the boot.

A pid alone is reused, and a start by the wall clock changes when the clock is set.
"""

from __future__ import annotations

from pathlib import Path


def process_identity(pid: int) -> str:
    """Return "PID TICKS", the text that the supervisor writes into its pid files.

    Raises:
        OSError: there is no such process.
    """
    return f"{pid} {_stat(pid)[19]}"


def is_alive(identity: str) -> bool:
    """Return whether the process with this identity still runs.

    Raises:
        ValueError: the text is not an identity.
    """
    pid, start_ticks = identity.split()
    try:
        fields = _stat(int(pid))
    except OSError:
        return False
    # A killed process that its parent has not reaped is still listed, as a zombie.
    return fields[0] != "Z" and fields[19] == start_ticks


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on; the second may contain spaces."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
