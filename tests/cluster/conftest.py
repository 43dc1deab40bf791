"""A cluster of hosts that are network namespaces: a bridge, a head, two that serve, two that load."""

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
#: Each host's last number in the network, and its part.
HOSTS = {
    "head": (1, ()),
    "serve1": (11, ("--role", "serving")),
    "serve2": (12, ("--role", "serving")),
    "load1": (21, ("--role", "loadgen", "--processes", "2")),
    "load2": (22, ("--role", "loadgen", "--processes", "2")),
}


def _missing() -> str | None:
    """Why there can be no such cluster here."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if missing := [name for name in ("ip", "unshare", "taskset") if shutil.which(name) is None]:
        return f"no {missing[0]} on PATH"
    made = subprocess.run(["ip", "netns", "add", "servetune-try"], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", "servetune-try"], capture_output=True, check=False)
    return f"network namespaces cannot be made here: {made.stderr}" if made.returncode else None


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Lab:
    """The hosts; whatever is started on one is ended with it.

    Args:
        folder: of the driver's files, which no other host sees.
    """

    def __init__(self, folder: Path):
        self.folder, self.home = folder, folder.with_suffix(".home")
        self._name = f"st{os.getpid()}"
        self.nodes: dict[str, subprocess.Popen[str]] = {}
        self._started: list[subprocess.Popen[str]] = []

    def space(self, host: str) -> str:
        """The name of a host's namespace."""
        return f"{self._name}-{host}"

    @staticmethod
    def address(host: str) -> str:
        """A host's address."""
        return f"{NETWORK}.{HOSTS[host][0]}"

    @property
    def cluster(self) -> str:
        """The head, as the others name it."""
        return f"{self.address('head')}:6379"

    def build(self) -> None:
        """Wire the hosts to a bridge, in a separate namespace."""
        self.home.mkdir()  # Every host sees it: the token is in it.
        bridge = self.space("net")
        ip("netns", "add", bridge)
        ip("-n", bridge, "link", "add", "br0", "type", "bridge")
        ip("-n", bridge, "link", "set", "br0", "up")
        for host, (number, _) in HOSTS.items():
            space = self.space(host)
            ip("netns", "add", space)
            ip(
                *("-n", space, "link", "add", "eth0", "type", "veth"),
                *("peer", "name", f"p{number}", "netns", bridge),
            )
            ip("-n", bridge, "link", "set", f"p{number}", "master", "br0", "up")
            ip("-n", space, "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
            ip("-n", space, "link", "set", "lo", "up")

    def destroy(self) -> None:
        """End what was started, and take the hosts down."""
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
            subprocess.run(["ip", "netns", "del", self.space(host)], capture_output=True)

    def start(self, host: str, *command: object, **options: object) -> subprocess.Popen[str]:
        """Start a command on a host, in a new process group.

        Only the head sees the driver's files: elsewhere there is an empty folder in their place.
        """
        hidden = "" if host == "head" else f"mount -t tmpfs none {self.folder} && "
        script = f'hostname {host} && {hidden}exec "$@"'
        inside = ["unshare", "--mount", "--uts", "sh", "-c", script, "sh"]
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.space(host), *inside, *map(str, command)],
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
        """Start the command on a host."""
        return self.start(host, sys.executable, "-m", "servetune", *arguments)

    def up(self, host: str, cores: str = "0-1023") -> None:
        """Start a host's node, and wait for it; it has these of this machine's cores."""
        where = ("--head",) if host == "head" else ("--join", self.cluster)
        command = ("taskset", "--cpu-list", cores, sys.executable, "-m", "servetune", "up")
        arguments = (*where, "--address", self.address(host), *HOSTS[host][1])
        node = self.nodes[host] = self.start(host, *command, *arguments)
        assert node.stdout is not None
        said = node.stdout.readline()
        assert "head" in said or "joined" in said, said + node.stdout.read()

    def inside(self, host: str, *command: str) -> str:
        """Carry out a command on a host; what it printed."""
        whole = ["ip", "netns", "exec", self.space(host), *command]
        return subprocess.run(whole, check=True, capture_output=True, text=True).stdout

    def link(self, host: str, state: str) -> None:
        """Take a host's interface `down`, or `up` again."""
        ip("-n", self.space(host), "link", "set", "eth0", state)

    def bytes_through(self, host: str) -> tuple[int, int]:
        """What has crossed a host's interface: received, sent."""
        text = self.inside(host, "cat", "/proc/net/dev")
        (line,) = [line for line in text.splitlines() if "eth0:" in line]
        numbers = line.partition(":")[2].split()
        return int(numbers[0]), int(numbers[8])


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A cluster that is up, with all five hosts."""
    if why := _missing():
        pytest.skip(why)
    found = Lab(tmp_path)
    try:
        found.build()
        for host in HOSTS:
            found.up(host)
        yield found
    finally:
        found.destroy()
        shutil.rmtree(found.home, ignore_errors=True)
