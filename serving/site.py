"""The place in which configurations are served: archive, installation, limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from serving.archive import Archive
from serving.configuration.config import ServerConfig
from serving.configuration.key_pair import KeyPair
from serving.installation import Installation
from serving.limits import Limits
from serving.ports import LOOPBACK, Ports


@dataclass(frozen=True)
class Site:
    """The part of a server's setup that is the same for all configurations of a run.

    Attributes:
        ready_timeout_s: time from the start until every worker must be ready, seconds.
        limits: those of the deployment; the server runs under them. Without a memory limit, the
            server may use 85 % of the memory available to it.
        ports: TCP ports; 0 means any free port.
        in_use: the configuration in use today; its settings are measured as they are, even if
            TorchServe ignores some of them.
        secrets: variables of the server that are never stored.
        key_pair: the key pair of the inference address if it is https; None for http.
        others: the models that are served beside `archive`.
        address: local address that answers predictions; all else listens on the loopback.
    """

    archive: Archive
    installation: Installation
    ready_timeout_s: float = 180.0
    limits: Limits = field(default_factory=Limits)
    ports: Ports = field(default_factory=Ports)
    in_use: ServerConfig = field(default_factory=ServerConfig)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    key_pair: KeyPair | None = None
    address: str = LOOPBACK
    others: tuple[Archive, ...] = ()

    @property
    def archives(self) -> tuple[Archive, ...]:
        """All models that are served, the tuned one first."""
        return (self.archive, *self.others)
