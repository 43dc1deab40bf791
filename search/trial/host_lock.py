"""A lock for one measurement at a time on a host."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from search.errors import RunError

#: An abstract address: the kernel releases it when its process ends, even if that is killed.
ADDRESS = "\0servetune"


@contextlib.contextmanager
def exclusive_host() -> Iterator[None]:
    """Hold the lock of this host, because two measurements at once would disturb each other.

    Raises:
        RunError: another process holds the lock.
    """
    with socket.socket(socket.AF_UNIX) as lock:
        try:
            lock.bind(ADDRESS)
        except OSError:
            raise RunError(
                "another servetune is measuring on this host, and two would disturb each other; "
                "wait until it ends"
            ) from None
        yield
