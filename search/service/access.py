"""Decide whether a request may be answered: its host, its origin, its token."""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from search.cluster.ray_token import create_secret_file
from search.errors import ServiceError
from search.service.errors import RequestError

#: Paths without a secret; the page among them asks for the token itself.
_PATHS_WITHOUT_TOKEN = ("/", "/v1/openapi.json")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:[0-9]{1,5})?", re.ASCII)
_WILDCARDS = ("0.0.0.0", "::", "")


def host_names(bound: str, names: Iterable[str] = ()) -> frozenset[str]:
    """Return the names by which clients may reach a service, beside those of the loopback.

    Args:
        bound: the address or the name that the service listens on.
        names: more names, such as that of a proxy.
    """
    known = {*names, bound}
    if bound in _WILDCARDS:
        known |= {socket.gethostname(), socket.getfqdn()}
    return frozenset(name.lower() for name in known)


def read_token(root: Path) -> str:
    """Return the token in this folder; the first start creates it, readable only by its owner.

    Raises:
        ServiceError: the file is empty.
    """
    path = root / "token"
    create_secret_file(path)
    if token := path.read_text().strip():
        return token
    raise ServiceError(f"{path} is empty; delete it and restart the service for a new token")


class Access:
    """The rules for requests.

    Args:
        names: see `host_names`.
        token: the token that every request must send; None requires none.
    """

    def __init__(self, names: frozenset[str], token: str | None):
        self._names, self._token = names, token

    def check(self, request: web.Request) -> None:
        """Check a request before anything of it is read.

        Raises:
            RequestError: it must not be answered.
        """
        self._check_host(request)
        _check_origin(request)
        self._check_token(request)

    def _check_host(self, request: web.Request) -> None:
        """Refuse a name that another site's DNS may point at this service (DNS rebinding)."""
        hosts = request.headers.getall("Host", [])
        if len(hosts) == 1 and self.is_known_host(hosts[0]):
            return
        given = repr(hosts[0][:100]) if len(hosts) == 1 else f"{len(hosts)} hosts"
        raise RequestError(
            403,
            f"Host must name this service (got {given}); use its address, or start the service "
            "with --name NAME",
        )

    def is_known_host(self, host: str) -> bool:
        """Return whether the value of a Host header is a name of this service, with any port."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if not _HOST.fullmatch(host):
            return False
        if name in self._names or name == "localhost":
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # A page of another site cannot have an address of this host as its origin.
        return address.is_loopback or any(wildcard in self._names for wildcard in _WILDCARDS)

    def _check_token(self, request: web.Request) -> None:
        is_public = request.path in _PATHS_WITHOUT_TOKEN or request.path.startswith("/static/")
        if self._token is None or is_public:
            return
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        # A header may contain any bytes.
        given = credentials.strip().encode(errors="surrogateescape")
        is_correct = hmac.compare_digest(given, self._token.encode())
        if scheme.lower() != "bearer" or not credentials:
            raise RequestError(401, "a token is required: Authorization: Bearer TOKEN")
        if not is_correct:
            raise RequestError(401, "the token is wrong")


def _check_origin(request: web.Request) -> None:
    """Refuse requests from pages of other sites, which a browser sends with the user's access."""
    for origin in request.headers.getall("Origin", []):
        try:
            is_own = urlsplit(origin).netloc == request.host
        except ValueError:
            is_own = False
        if not is_own:
            raise RequestError(403, f"requests from pages of {origin[:100]} are not allowed")
    # A browser sends no Origin with some GET requests, such as those of <img>.
    site = request.headers.get("Sec-Fetch-Site", "none")
    mode = request.headers.get("Sec-Fetch-Mode", "navigate")
    if site in ("cross-site", "same-site") and mode != "navigate":
        raise RequestError(403, "requests from pages of other sites are not allowed")
