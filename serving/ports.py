"""TCP ports of a server and the choice of free ones."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass, fields

from servetune.errors import FailureKind
from serving.errors import ServerError

#: Below Linux's ephemeral ports, above those of Ray's workers (10002 to 19999).
PORT_RANGE = range(20000, 32000)
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Ports:
    """TCP ports of a server; 0 means any free port."""

    inference: int = 0
    management: int = 0
    metrics: int = 0
    grpc_inference: int = 0
    grpc_management: int = 0

    def choose(self, address: str = LOOPBACK) -> Ports:
        """Replace each 0 by a port that is free on the loopback and on this address.

        Raises:
            ServerError: a port that is not 0 is in use.
        """
        taken: set[int] = set()
        chosen: dict[str, int] = {}
        for item in fields(self):
            port: int = getattr(self, item.name)
            if port and (port in taken or not is_port_free(port, address)):
                raise ServerError(
                    FailureKind.PORT_IN_USE,
                    f"port {port} ({item.name}) is in use; set a free port in "
                    f"serving.ports.{item.name}, or 0 for any free port",
                    host_fault=True,
                )
            while not port:
                port = random.choice(PORT_RANGE)
                if port in taken or not is_port_free(port, address):
                    port = 0
            taken.add(port)
            chosen[item.name] = port
        return Ports(**chosen)


def is_port_free(port: int, address: str = LOOPBACK) -> bool:
    """Return whether no socket listens on this port, on the loopback or on this address."""
    for interface in {LOOPBACK, address}:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((interface, port))
            except OSError:
                return False
    return True
