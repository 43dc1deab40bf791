"""The options that the service is started with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class ServiceOptions:
    """The options that the service is started with.

    Attributes:
        roots: folders that the files of a specification must be inside.
        token: the token that every request must send; None requires none.
        max_request_bytes: the maximum size of a request.
        names: names by which clients may reach the service, beside those of the loopback.
        allowed_hosts: hosts, beside the loopback, that a job may send results to.
        links: addresses of related pages by name, such as Ray's dashboard.
    """

    roots: tuple[Path, ...]
    token: str | None
    max_request_bytes: int = 1 << 30
    names: frozenset[str] = frozenset()
    allowed_hosts: frozenset[str] = frozenset()
    links: Mapping[str, str] = field(default_factory=dict)
