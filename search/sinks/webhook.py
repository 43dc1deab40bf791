"""Send signed HTTP requests when a run ends. A receiver that is down costs a warning.

The request has these headers:

- `X-Servetune-Event`: finished, failed or stopped
- `X-Servetune-Delivery`: an id, the same in each retry
- `X-Servetune-Timestamp`: seconds since 1970
- `X-Servetune-Signature`: `sha256=` and the HMAC-SHA256, hexadecimal, of `TIMESTAMP.BODY`
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import secrets
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from search.cluster.ray_token import create_secret_file
from search.formats import NOTIFICATION_VERSION
from search.sinks.hosts import is_allowed
from search.spec.sections import NotifySection

#: The file of the key that requests are signed with.
SECRET_FILE = "notify-secret"
DEFAULT_FOLDER = Path("~/.servetune")
#: Waits before each attempt, seconds.
_WAITS_S = (0.0, 0.5, 2.0)
_TIMEOUT_S = 5.0
#: The run waits this long for all receivers, seconds.
LIMIT_S = 20.0
_RETRIED = (408, 425, 429)


def read_secret(folder: Path = DEFAULT_FOLDER) -> bytes:
    """Return the key of the signatures; create it, readable only by its owner, if it is missing.

    Raises:
        OSError: it cannot be read or created, or is empty.
    """
    path = folder.expanduser() / SECRET_FILE
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    create_secret_file(path)
    if secret := path.read_bytes().strip():
        return secret
    raise OSError(f"{path} is empty; delete it for a new one")


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """Return the value of `X-Servetune-Signature`."""
    digest = hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256)
    return f"sha256={digest.hexdigest()}"


def notify(
    hooks: Sequence[NotifySection],
    event: str,
    data: Mapping[str, Any],
    secret: bytes,
    hosts: Collection[str] | None = None,
) -> list[str]:
    """Send an event to each webhook that asks for it; return warnings.

    Args:
        event: finished, failed or stopped.
        data: plain JSON data of the body.
        hosts: the hosts, beside the loopback, that may receive it; None for every host.
    """
    body = json.dumps({"format_version": NOTIFICATION_VERSION, "event": event, **data}).encode()
    warnings: list[str] = []
    threads = []
    for hook in hooks:
        if event not in hook.on:
            continue
        host = urlsplit(hook.url).hostname or ""
        if hosts is not None and not is_allowed(hook.url, hosts):
            warnings.append(f"the webhook at {host} was not sent: its host is not allowed")
            continue
        delivery = _Delivery(hook.url, event, body, secret)
        # A receiver that answers one byte at a time must not hold up the run.
        thread = threading.Thread(target=delivery.send, daemon=True)
        thread.start()
        threads.append((thread, delivery, host))
    deadline_s = time.monotonic() + LIMIT_S
    for thread, delivery, host in threads:
        thread.join(max(deadline_s - time.monotonic(), 0.0))
        if delivery.problem is not None:
            warnings.append(f"the webhook at {host} was not delivered: {delivery.problem}")
    return warnings


class _Delivery:
    """One request, with its retries.

    Attributes:
        problem: why it is not delivered yet; None if it is.
    """

    def __init__(self, url: str, event: str, body: bytes, secret: bytes):
        self._url, self._body = urlsplit(url), body
        timestamp = str(int(time.time()))
        self._headers = {
            "Content-Type": "application/json",
            "User-Agent": "servetune",
            "X-Servetune-Event": event,
            "X-Servetune-Delivery": secrets.token_hex(16),
            "X-Servetune-Timestamp": timestamp,
            "X-Servetune-Signature": signature(secret, timestamp, body),
        }
        self.problem: str | None = f"no answer within {LIMIT_S:.0f} s"

    def send(self) -> None:
        """Send the request until it is accepted, or refused for good."""
        for wait_s in _WAITS_S:
            time.sleep(wait_s)
            try:
                status = self._post()
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.problem = str(error) or type(error).__name__
                continue
            # A redirection is not followed: it may lead to another host.
            self.problem = None if 200 <= status < 300 else f"it answered with status {status}"
            if status < 500 and status not in _RETRIED:
                return

    def _post(self) -> int:
        """Return the status of the answer, whose body is not read."""
        url = self._url
        is_tls = url.scheme == "https"
        connect = http.client.HTTPSConnection if is_tls else http.client.HTTPConnection
        connection = connect(url.hostname or "", url.port, timeout=_TIMEOUT_S)
        try:
            path = (url.path or "/") + (f"?{url.query}" if url.query else "")
            connection.request("POST", path, self._body, self._headers)
            return connection.getresponse().status
        finally:
            connection.close()
