"""Checks of the parts of a request's head. Each raises ValueError with one sentence. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
#: A request with one of these has a body, even if it is empty.
METHODS_WITH_BODY = ("PATCH", "POST", "PUT")

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: Characters of a target that are sent as they are; others are percent-encoded.
_TARGET_CHARACTERS = "!#$%&'()*+,/:;=?@[]~"
#: `check_target` refuses these, so `encode_target` must not hide them.
_CONTROL_CHARACTERS = "".join(map(chr, (*range(32), 127)))
_CONNECTION = "belongs to the connection, which the load generator manages; remove it"
#: Headers that a request must not set, with the reason.
_OWNED_HEADERS = {
    "content-length": "is computed from the body; remove it",
    "transfer-encoding": "is not supported: each body is sent with its length; remove it",
    **dict.fromkeys(
        ("keep-alive", "proxy-connection", "te", "trailer", "upgrade", "http2-settings"),
        _CONNECTION,
    ),
}


def check_method(method: str) -> None:
    """Check that a method is one that can be sent."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)} (got {method!r})")


def check_status(codes: Iterable[int]) -> None:
    """Check that there is a code of a final answer, and no other."""
    codes = list(codes)
    if not codes:
        raise ValueError("status must contain at least one code")
    for code in codes:
        if isinstance(code, bool) or not isinstance(code, int) or not 200 <= code <= 599:
            raise ValueError(f"status must be a code from 200 to 599 (got {code!r})")


def check_headers(headers: Mapping[str, str]) -> None:
    """Check the names and values of headers."""
    seen: dict[str, str] = {}
    for name, text in headers.items():
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a header")
        if not isinstance(text, str):
            raise ValueError(f"header {name} must be a string (got {text!r})")
        lower = name.lower()
        if lower in seen:
            raise ValueError(
                f"headers {seen[lower]} and {name} are the same: names are case-insensitive; "
                "keep one"
            )
        seen[lower] = name
        _check_value(name, lower, text)


def _check_value(name: str, lower: str, text: str) -> None:
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]", text):
        raise ValueError(
            f"header {name} must not contain line breaks or control characters (got {text!r})"
        )
    if lower in _OWNED_HEADERS:
        raise ValueError(f"header {name} {_OWNED_HEADERS[lower]}")
    if lower == "connection" and text.strip().lower() != "keep-alive":
        raise ValueError(f"header {name} must be keep-alive, because connections are kept")
    if lower == "expect" and text.strip().lower() != "100-continue":
        raise ValueError(f"header {name} must be 100-continue (got {text!r})")
    if lower == "host" and (not text or re.search(r"[\s/@?#\\]", text)):
        raise ValueError(f"header {name} must be a host name, with a port at most (got {text!r})")


def encode_target(path: str) -> str:
    """Return a path with spaces and non-ASCII characters encoded, as clients do."""
    return quote(path, safe=_TARGET_CHARACTERS + _CONTROL_CHARACTERS)


def check_target(path: str) -> None:
    """Check a path and query below the server's root, which are sent as they are.

    Raises:
        ValueError: it is an address, leaves the root, or contains what a server never receives.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://|//", path):
        raise ValueError(
            f"path must be a path on the server, such as /predictions/NAME, not an address "
            f"(got {path!r})"
        )
    if not path.startswith("/"):
        raise ValueError(f"path must begin with / (got {path!r})")
    if "#" in path:
        raise ValueError(f"path must not contain #: a fragment is not sent (got {path!r})")
    if path.endswith("?") and path.count("?") == 1:
        raise ValueError(f"path must not end with an empty query (got {path!r})")
    if re.search(r"%(?![0-9A-Fa-f]{2})", path):
        raise ValueError(f"'%' must be written as %25 in path (got {path!r})")
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", path):
        raise ValueError(f"path must not contain control characters (got {path!r})")
    if path != encode_target(path):
        raise ValueError(f"path must be percent-encoded: {encode_target(path)!r} (got {path!r})")
    segments = re.sub("%2e", ".", path.partition("?")[0], flags=re.IGNORECASE).split("/")
    if {".", ".."} & set(segments):
        raise ValueError(f"path must not contain . or .. as a segment (got {path!r})")
