"""How requests are posted: what a poster and the receiver of its results look like."""

from __future__ import annotations

import errno
from typing import Protocol

import aiohttp

from loadgen.payloads import Payload

#: The payload, when it was due, and when it was sent; seconds after the window's start.
Post = tuple[Payload, float, float]

#: This process ran out of files or ports: nothing was sent.
_OWN_LIMITS = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL)


class Receiver(Protocol):
    """Receives one result of each post, unless an exception ends the window."""

    def answered(self, post: Post, status: int, body: bytes) -> None:
        """Receive a whole answer."""
        ...

    def failed(self, post: Post, cause: str) -> None:
        """Receive the cause of a failure."""
        ...

    def unsent(self, post: Post) -> None:
        """Receive that the post did not leave this process, which ran out of files or ports."""
        ...

    def broken(self, error: Exception) -> None:
        """Receive an exception that no server causes; as a failure it would be blamed on one."""
        ...


class Poster(Protocol):
    """Posts payloads, and gives each result to the receiver; follows and repeats nothing."""

    def post(self, post: Post) -> None:
        """Send a request now; posts come in the order in which they are due."""
        ...

    def expire(self, due_before: float) -> None:
        """End posts that were due before this time and have no answer; their cause is `timeout`."""
        ...


def report_failure(receiver: Receiver, post: Post, error: Exception) -> None:
    """Give the receiver an exception that a post raised."""
    if isinstance(error, OSError) and error.errno in _OWN_LIMITS:
        receiver.unsent(post)
    elif isinstance(error, OSError | aiohttp.ClientError | TimeoutError):
        receiver.failed(post, failure_cause(error))
    else:
        receiver.broken(error)


def failure_cause(error: Exception) -> str:
    """Return the name under which a failed post is counted."""
    match error:
        case aiohttp.ClientSSLError():
            return f"TLS: {getattr(error, 'certificate_error', error.os_error)}"
        case aiohttp.ClientConnectorError():
            return (
                "connection refused" if error.errno == 111 else f"no connection: {error.strerror}"
            )
        case aiohttp.ServerDisconnectedError():
            return "disconnected"
        case aiohttp.ClientPayloadError():
            return "incomplete body"
        case aiohttp.ClientResponseError():
            return "malformed answer"
        case ConnectionResetError() | aiohttp.ClientOSError():
            return "reset"
    return type(error).__name__
