"""The base of every section of a specification."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A section of a specification: no unknown keys, no coercion of types, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def optional_section(description: str) -> Any:
    """Return a field for a section that may be missing; it is then validated as an empty one."""
    return Field(default={}, validate_default=True, description=description)


def _expand_user(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError(f"must not contain a NUL character (got {str(path)!r})")
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"{path} is in the home of a user who does not exist") from None


#: A path with `~` expanded; search.spec.loading makes it absolute.
UserPath = Annotated[Path, Field(strict=False), AfterValidator(_expand_user)]


def _is_http_url(url: str) -> str:
    expected = "must be an http:// or https:// URL"
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or not url.isascii() or any(c <= " " or c in '\\"<>\x7f' for c in url):
        # The URL itself may be a secret.
        raise ValueError(f"{expected} without spaces and other special characters")
    if parts.username or parts.password or parts.fragment:
        raise ValueError(f"{expected} without a user name, a password and a fragment")
    return url


#: An absolute URL of a server that results are sent to.
HttpUrl = Annotated[str, AfterValidator(_is_http_url)]
