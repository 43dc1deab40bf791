"""Where a configuration is served: the archive, the installation, the limits."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from serving.archive import Archive
from serving.installation import Installation
from serving.ports import LOOPBACK, Ports


@dataclass(frozen=True)
class Site:
    """Where and under what limits a configuration is served; the same for all of a run.

    Attributes:
        ready_timeout_s: from the start until every worker is READY.
        memory_limit_bytes: resident memory of the server and its workers, summed;
            None is 85 % of what the host has for it at the moment.
        ports: those asked for; the rest is chosen.
        cores: what an unset number of workers or threads means.
        address: of this host, where predictions are answered; all else stays on the loopback.
    """

    archive: Archive
    installation: Installation
    ready_timeout_s: float = 180.0
    memory_limit_bytes: int | None = None
    ports: Ports = field(default_factory=Ports)
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    address: str = LOOPBACK
