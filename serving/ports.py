"""TCP ports of a server: which are free, and which one it takes."""

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
    """TCP ports; 0 stands for any free one."""

    inference: int = 0
    management: int = 0
    metrics: int = 0
    grpc_inference: int = 0
    grpc_management: int = 0

    def choose(self, address: str = LOOPBACK) -> Ports:
        """Fill in ports that are free on the loopback and on this address.

        Raises:
            ServerError: a port that was asked for by number is in use.
        """
        taken: set[int] = set()
        chosen: dict[str, int] = {}
        for item in fields(self):
            port: int = getattr(self, item.name)
            if port and (port in taken or not is_free(port, address)):
                raise ServerError(
                    FailureKind.PORT_IN_USE,
                    f"port {port} ({item.name}) is in use; "
                    f"name a free one in serving.ports.{item.name}, or none",
                    host_fault=True,
                )
            while not port:
                port = random.choice(PORT_RANGE)
                if port in taken or not is_free(port, address):
                    port = 0
            taken.add(port)
            chosen[item.name] = port
        return Ports(**chosen)


def is_free(port: int, address: str = LOOPBACK) -> bool:
    """Whether nobody listens on this port, neither on the loopback nor on this address."""
    for each in {LOOPBACK, address}:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((each, port))
            except OSError:
                return False
    return True
