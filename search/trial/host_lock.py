"""One measurement at a time on a host."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from search.errors import RunError


@contextlib.contextmanager
def exclusive_host() -> Iterator[None]:
    """Keep this host to one measurement: two at once would measure each other.

    Raises:
        RunError: there is another.
    """
    # A name that the kernel takes back from a process that ends, however it ends.
    with socket.socket(socket.AF_UNIX) as name:
        try:
            name.bind("\0servetune")
        except OSError:
            raise RunError(
                "another servetune measures on this host, and two would disturb each other; "
                "wait until it has ended"
            ) from None
        yield
