"""A cluster of network namespaces: a head, two serving hosts, two load generator hosts, a bridge."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.conftest import (  # noqa: F401
    no_command_outlives_its_test,
    nothing_stays_behind,
    study,
)

ROOT = Path(__file__).parents[2]
NETWORK = "10.77.0"
#: The last part of each host's address, and the options of its node.
HOSTS = {
    "head": (1, ()),
    "serve1": (11, ("--role", "serving")),
    "serve2": (12, ("--role", "serving")),
    "load1": (21, ("--role", "loadgen", "--processes", "2")),
    "load2": (22, ("--role", "loadgen", "--processes", "2")),
}


def _unavailable() -> str | None:
    """Return why the cluster cannot be created on this machine; None if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if missing := [name for name in ("ip", "unshare", "taskset") if shutil.which(name) is None]:
        return f"no {missing[0]} on PATH"
    added = subprocess.run(["ip", "netns", "add", "servetune-try"], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", "servetune-try"], capture_output=True, check=False)
    return f"network namespaces cannot be created: {added.stderr}" if added.returncode else None


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Lab:
    """The hosts, and the processes that were started on them.

    Args:
        folder: the driver's files; only the head can see them.

    Attributes:
        home: the home directory on every host; it contains the cluster's token.
        nodes: the process of `servetune up` on each host.
    """

    def __init__(self, folder: Path):
        self.folder, self.home = folder, folder.with_suffix(".home")
        self._name = f"st{os.getpid()}"
        self.nodes: dict[str, subprocess.Popen[str]] = {}
        self._started: list[subprocess.Popen[str]] = []

    def namespace(self, host: str) -> str:
        """Return the name of a host's namespace."""
        return f"{self._name}-{host}"

    @staticmethod
    def address(host: str) -> str:
        """Return a host's address."""
        return f"{NETWORK}.{HOSTS[host][0]}"

    @property
    def cluster(self) -> str:
        """The head's address and port."""
        return f"{self.address('head')}:6379"

    def build(self) -> None:
        """Create the hosts and connect them to a bridge, which has a separate namespace."""
        self.home.mkdir()
        bridge = self.namespace("net")
        ip("netns", "add", bridge)
        ip("-n", bridge, "link", "add", "br0", "type", "bridge")
        ip("-n", bridge, "link", "set", "br0", "up")
        for host, (number, _) in HOSTS.items():
            namespace = self.namespace(host)
            ip("netns", "add", namespace)
            ip(
                *("-n", namespace, "link", "add", "eth0", "type", "veth"),
                *("peer", "name", f"p{number}", "netns", bridge),
            )
            ip("-n", bridge, "link", "set", f"p{number}", "master", "br0", "up")
            ip("-n", namespace, "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
            ip("-n", namespace, "link", "set", "eth0", "up")
            ip("-n", namespace, "link", "set", "lo", "up")

    def destroy(self) -> None:
        """End the started processes, and delete the hosts."""
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._started:
            try:
                process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        for host in [*HOSTS, "net"]:
            subprocess.run(["ip", "netns", "del", self.namespace(host)], capture_output=True)

    def start(self, host: str, *command: object, **options: object) -> subprocess.Popen[str]:
        """Start a command on a host, in a new process group.

        On other hosts than the head, an empty folder hides the driver's files.
        """
        hide = "" if host == "head" else f"mount -t tmpfs none {self.folder} && "
        script = f'hostname {host} && {hide}exec "$@"'
        unshare = ["unshare", "--mount", "--uts", "sh", "-c", script, "sh"]
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace(host), *unshare, *map(str, command)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "COLUMNS": "200", "HOME": str(self.home)},
            **options,  # type: ignore[call-overload]
        )
        self._started.append(process)
        return process

    def servetune(self, host: str, *arguments: object) -> subprocess.Popen[str]:
        """Start a servetune command on a host."""
        return self.start(host, sys.executable, "-P", "-m", "servetune", *arguments)

    def start_node(self, host: str, cores: str = "0-1023") -> None:
        """Start a host's node, and wait until it is part of the cluster.

        Args:
            cores: of this machine that the node may use, as `taskset` accepts them.
        """
        membership = ("--head",) if host == "head" else ("--join", self.cluster)
        command = ("taskset", "--cpu-list", cores, sys.executable, "-P", "-m", "servetune", "up")
        arguments = (*membership, "--address", self.address(host), *HOSTS[host][1])
        node = self.nodes[host] = self.start(host, *command, *arguments)
        assert node.stdout is not None
        line = node.stdout.readline()
        assert "head" in line or "joined" in line, line + node.stdout.read()

    def run(self, host: str, *command: str) -> str:
        """Run a command on a host; return its output."""
        inside = ["ip", "netns", "exec", self.namespace(host), *command]
        return subprocess.run(inside, check=True, capture_output=True, text=True).stdout

    def set_link(self, host: str, state: str) -> None:
        """Set a host's interface `down` or `up`."""
        ip("-n", self.namespace(host), "link", "set", "eth0", state)

    def bytes_through(self, host: str) -> tuple[int, int]:
        """Return the bytes that a host's interface has received and sent."""
        text = self.run(host, "cat", "/proc/net/dev")
        (line,) = [line for line in text.splitlines() if "eth0:" in line]
        fields = line.partition(":")[2].split()
        return int(fields[0]), int(fields[8])


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A running cluster with all five hosts."""
    if reason := _unavailable():
        pytest.skip(reason)
    hosts = Lab(tmp_path)
    try:
        hosts.build()
        for host in HOSTS:
            hosts.start_node(host)
        yield hosts
    finally:
        hosts.destroy()
        shutil.rmtree(hosts.home, ignore_errors=True)
