"""The hosts that results may be sent to."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit


def is_allowed(url: str, hosts: Collection[str]) -> bool:
    """Return whether a URL's host is the loopback or one of `hosts`, in lower case.

    Names are compared as they are, before DNS: a name that resolves to the loopback is not it.
    """
    name = (urlsplit(url).hostname or "").lower()
    if name == "localhost" or name in hosts:
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
