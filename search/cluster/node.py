"""A node of a Ray cluster, started with Ray's command and ended with all its processes."""

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
from search.environment import RAY_NICENESS
from search.errors import CommandError, RunError
from serving import supervisor
from serving.limits import available_cores

ROLES = ("serving", "loadgen")
HEAD_PORT, CLIENT_PORT = 6379, 10001
#: The same on every node, so that firewall rules can name them.
PORTS = {"node-manager-port": 6380, "object-manager-port": 6381}
_START_TIMEOUT_S, _POLL_S = 60.0, 0.2
#: Ray's log contains this line after the start.
_STARTED = "Ray runtime started"
_LOG_TAIL_LINES = 12


@dataclass(frozen=True)
class NodeOptions:
    """Options of a node.

    Attributes:
        join: the head's address, `HOST:PORT`; None makes this node the head.
        address: this node's own address; None lets Ray choose.
        serves: whether trials may be placed on this node.
        loadgen: how many load generator processes may be placed on this node.
        port: of the head.
        token: the file with the cluster's token.
        ports: of Ray's components, by option name; Ray chooses the others.
    """

    join: str | None
    address: str | None
    serves: bool
    loadgen: int
    port: int
    token: Path
    ports: Mapping[str, int] = field(default_factory=lambda: PORTS)

    def command(self, folder: Path) -> list[str]:
        """Return the command that starts the node with its files in this folder."""
        resources = {SERVING_RESOURCE: int(self.serves), LOADGEN_RESOURCE: self.loadgen}
        offered = {name: count for name, count in resources.items() if count}
        command = [*(sys.executable, "-P", "-m", "ray.scripts.scripts", "start", "--block")]
        if self.join:
            command.append(f"--address={self.join}")
        else:
            command += ["--head", f"--port={self.port}", "--dashboard-host=127.0.0.1"]
        command += [f"--node-ip-address={self.address}"] if self.address else []
        command += [f"--{name}={port}" for name, port in self.ports.items()]
        # TorchServe computes outside of Ray: Ray gets as little of the host as possible.
        command += ["--num-cpus=2", f"--object-store-memory={OBJECT_STORE_BYTES}"]
        command += [f"--resources={json.dumps(offered)}", f"--temp-dir={folder / 'ray'}"]
        return [*command, "--disable-usage-stats"]


def free_ports(count: int) -> list[int]:
    """Return TCP ports of the loopback on which nothing listens now."""
    sockets = [socket.socket() for _ in range(count)]
    for sock in sockets:
        sock.bind(("127.0.0.1", 0))
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def parse_roles(roles: Sequence[str], processes: int | None) -> tuple[bool, int]:
    """Return whether a node serves, and how many load generator processes it accepts.

    Args:
        processes: with the role loadgen only; None for one per core.

    Raises:
        CommandError: a role is unknown, or processes are given without the role loadgen.
    """
    if unknown := [role for role in roles if role not in ROLES]:
        raise CommandError(f"--role must be {' or '.join(ROLES)} (got {unknown[0]!r})")
    generates_load = "loadgen" in roles
    if processes is not None and not generates_load:
        raise CommandError(f"--processes {processes} needs --role loadgen too")
    cores = available_cores()
    return "serving" in roles, (processes or cores) if generates_load else 0


class RunningNode:
    """A node, as a context: leaving it, or the end of this process, ends all its processes.

    Raises (on entering):
        RunError: Ray did not start.
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
                **RAY_NICENESS,
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN_PATH": str(self._options.token),
                # Temporary files of killed processes are removed with the folder.
                "TMPDIR": str(self._folder),
            },
            "folder": "/",
            "log": str(self._log),
            "home": str(self._folder),
        }
        self._supervisor = subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__],  # -I includes -P.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            self._send(json.dumps(request))
            if "error" in (answer := self._receive()):
                raise RunError(f"Ray did not start on this host: {answer['error']}")
            self._wait_until_started()
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
            self._send("stop")
        assert self._supervisor.stdin and self._supervisor.stdout
        with contextlib.suppress(OSError):
            self._supervisor.stdin.close()
        # The supervisor closes its output after it has ended every process.
        self._supervisor.stdout.read()
        self._supervisor.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def has_ended(self, timeout_s: float) -> bool:
        """Wait for the node to end by itself; return whether it has."""
        assert self._supervisor.stdout is not None
        return bool(select.select([self._supervisor.stdout], [], [], timeout_s)[0])

    def start_message(self) -> str:
        """Return what the node is part of, and how other hosts join a head."""
        options = self._options
        if options.join:
            return f"joined {options.join}"
        head = f"{options.address or ray.util.get_node_ip_address()}:{options.port}"
        return (
            f"the cluster's head: {head}; on each other host, copy {options.token} and run "
            f"servetune up --join {head} --role serving"
        )

    def log_tail(self) -> str:
        """Return the last lines of Ray's log."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])

    def _wait_until_started(self) -> None:
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while _STARTED not in self._log.read_text(errors="replace"):
            if self.has_ended(_POLL_S) or time.monotonic() > deadline_s:
                raise RunError(f"Ray did not start on this host:\n{self.log_tail()}")

    def _send(self, line: str) -> None:
        assert self._supervisor.stdin is not None
        self._supervisor.stdin.write(line + "\n")
        self._supervisor.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        assert self._supervisor.stdout is not None
        line = self._supervisor.stdout.readline()
        message: dict[str, Any] = json.loads(line or '{"error": "its supervisor ended"}')
        return message
