"""A node of a Ray cluster, started over Ray's own command and ended with all that it started."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray

from loadgen.ray_process import LOADGEN_RESOURCE
from search.cluster.folders import RAY_PREFIX, create_owned_folder
from search.cluster.placement import SERVING_RESOURCE
from search.cluster.ray_session import OBJECT_STORE_BYTES
from search.errors import CommandError, RunError
from serving import supervisor

ROLES = ("serving", "loadgen")
HEAD_PORT, CLIENT_PORT = 6379, 10001
#: The same on every node, so that a firewall can know them.
PORTS = {"node-manager-port": 6380, "object-manager-port": 6381}
_START_S = 60.0
_STARTED = "Ray runtime started"
_POLL_S = 0.2
_LINES = 12


@dataclass(frozen=True)
class NodeOptions:
    """What a node is to be.

    Attributes:
        join: the head's address, `HOST:PORT`; None makes this node the head.
        address: this node's own; Ray finds one where it is None.
        serves: whether trials may be placed here.
        loadgen: how many load processes may be.
        port: of the head.
        token: the file with the cluster's token, which Ray asks of everybody.
        ports: more of Ray's, by its options; what is not named Ray chooses.
    """

    join: str | None
    address: str | None
    serves: bool
    loadgen: int
    port: int
    token: Path
    ports: Mapping[str, int] = field(default_factory=lambda: PORTS)

    def command(self, folder: Path) -> list[str]:
        """Ray's own, with its files in this folder."""
        resources = {SERVING_RESOURCE: int(self.serves), LOADGEN_RESOURCE: self.loadgen}
        held = {name: count for name, count in resources.items() if count}
        found = [*(sys.executable, "-P", "-m", "ray.scripts.scripts", "start", "--block")]
        if self.join:
            found.append(f"--address={self.join}")
        else:
            found += ["--head", f"--port={self.port}", "--dashboard-host=127.0.0.1"]
        found += [f"--node-ip-address={self.address}"] if self.address else []
        found += [f"--{name}={port}" for name, port in self.ports.items()]
        # A trial computes outside of Ray: the less Ray takes of the host the better.
        found += ["--num-cpus=2", f"--object-store-memory={OBJECT_STORE_BYTES}"]
        found += [f"--resources={json.dumps(held)}", f"--temp-dir={folder / 'ray'}"]
        return [*found, "--disable-usage-stats"]


def free_ports(count: int) -> list[int]:
    """TCP ports of the loopback that nobody listens on at the moment."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def role_of(roles: Sequence[str], processes: int | None) -> tuple[bool, int]:
    """Whether a node serves, and how many load processes it takes.

    Raises:
        CommandError: no such role, or processes of load without the role.
    """
    if wrong := [role for role in roles if role not in ROLES]:
        raise CommandError(f"--role must be {' or '.join(ROLES)}, got {wrong[0]!r}")
    loads = "loadgen" in roles
    if processes is not None and not loads:
        raise CommandError("--processes are of load: name --role loadgen too")
    cores = len(os.sched_getaffinity(0))
    return "serving" in roles, (processes or cores) if loads else 0


class RunningNode:
    """A node, as a context: leaving it, or the end of this process, ends all of it.

    Raises (on entering):
        RunError: it did not come up.
    """

    def __init__(self, options: NodeOptions):
        self._options = options

    def __enter__(self) -> Self:
        self._folder = create_owned_folder(RAY_PREFIX)
        self._log = self._folder / "node.log"
        self._log.touch()
        request = {
            "argv": self._options.command(self._folder),
            "environment": {
                **os.environ,
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN_PATH": str(self._options.token),
                "TMPDIR": str(self._folder),  # What is killed leaves nothing outside.
            },
            "folder": "/",
            "log": str(self._log),
            "home": str(self._folder),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            self._say(json.dumps(request))
            if "error" in (first := self._hear()):
                raise RunError(f"Ray did not start on this host: {first['error']}")
            self._until_up()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self._say("stop")
        # Its end of the pipe closes when every process and the folder are gone.
        assert self._process.stdin and self._process.stdout
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.stdout.read()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def has_ended(self, within_s: float) -> bool:
        """Wait for the node's own end."""
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], within_s)[0])

    def said(self) -> str:
        """What whoever started it should know."""
        options = self._options
        if options.join:
            return f"joined {options.join}"
        where = f"{options.address or ray.util.get_node_ip_address()}:{options.port}"
        return (
            f"the cluster's head: {where}; on the other hosts, with a copy of {options.token}: "
            f"servetune up --join {where} --role serving"
        )

    def log_tail(self) -> str:
        """The last of what Ray has said."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return "\n".join(lines[-_LINES:])

    def _until_up(self) -> None:
        deadline = time.monotonic() + _START_S
        while _STARTED not in self._log.read_text(errors="replace"):
            if self.has_ended(_POLL_S) or time.monotonic() > deadline:
                raise RunError(f"Ray did not start on this host:\n{self.log_tail()}")

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        told: dict[str, Any] = json.loads(
            self._process.stdout.readline() or '{"error": "it ended"}'
        )
        return told
