"""A run's Ray cluster: its hosts, what each lacks, which are alike, what they are sent."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from loadgen.ray_process import LOADGEN_RESOURCE
from search import keeper
from search.errors import ClusterError, RunError
from search.host import describe_host, describe_versions, only_one
from search.text import first_line
from search.token import cluster_token, is_told
from serving.archive import Archive
from serving.errors import ServerError
from serving.identity import identity, is_alive
from serving.installation import find_installation
from serving.leftovers import sweep
from serving.ports import LOOPBACK

SERVING_RESOURCE = "serving_host"
OBJECT_STORE_BYTES = 80 << 20
CLEANUP_S = 30
#: Folders that belong to a process, which is named in them.
RAY_PREFIX, HOST_PREFIX = "servetune.ray-", "servetune.host-"
#: Hosts whose speeds differ by more than this are not alike.
ALIKE = 0.1
#: Versions that must be the same on every serving host.
SAME = ("servetune", "torchserve", "python", "torch", "java")
_ANSWER_S, _CONNECT_S = 60.0, 5.0
#: So often it is seen whether hosts are left, and for so long they may be away.
_LOOK_S, _GONE_S = 5.0, 60.0
_PART_BYTES = 32 << 20
_SLICE_S, _SLICES = 0.2, 6


@contextlib.contextmanager
def ray_cluster(
    address: str | None = None, processes: int = 1, ray_output: bool = False, ended: str = ""
) -> Iterator[Path]:
    """The Ray cluster at an address, or one on this host alone.

    Yields a folder for what is needed meanwhile, which is gone when this ends.

    Args:
        processes: of load, that there is room for on this host alone.
        ended: what is said on standard error where this process is killed meanwhile.

    Raises:
        RunError: nothing answers at the address, or it is not this host's cluster.
        ClusterError: Ray failed meanwhile.
        CommandError: Ray's token cannot be made.
    """
    if address is not None:
        _check_that_one_answers(address)
    elif not is_told() and os.environ.get("RAY_AUTH_MODE") != "disabled":
        cluster_token(None, make=True)  # Ray's own would be everybody's to read.
    sweep()
    sweep_folders()
    os.environ |= {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_FORCE_TRIAL_CLEANUP_S": str(CLEANUP_S),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Tune's newer output prints a box even where it is told to be silent.
        "RAY_AIR_NEW_OUTPUT": "0",
    }
    with kept_folder(RAY_PREFIX, ended) as folder, contextlib.ExitStack() as stack:
        stack.callback(ray.shutdown)
        alone: dict[str, Any] = {
            "include_dashboard": False,
            "num_cpus": 2,
            "resources": {SERVING_RESOURCE: 1, LOADGEN_RESOURCE: processes},
            "object_store_memory": OBJECT_STORE_BYTES,
            # Ray opens its own folder to everybody; the one around it is this user's alone.
            "_temp_dir": str(folder / "ray"),
        }
        try:
            ray.init(
                address=address or "local",
                log_to_driver=ray_output,
                logging_level=logging.INFO if ray_output else logging.ERROR,
                **({} if address else alone),
            )
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            if address is None:
                raise
            raise RunError(
                f"cluster.address: this host is not part of a Ray cluster at {address}, or has not "
                f"its token ({first_line(str(error))}); servetune up --join makes it one"
            ) from None
        try:
            yield folder
        except RayError as error:
            raise ClusterError(f"Ray failed: {first_line(str(error))}") from error


def _check_that_one_answers(address: str) -> None:
    """Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        return  # "auto", and what Ray knows how to find.
    try:
        socket.create_connection((host, int(port)), _CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise RunError(
            f"cluster.address: nothing answers at {address} ({error}); servetune up --head starts "
            "a cluster there"
        ) from None


@contextlib.contextmanager
def kept_folder(prefix: str, ended: str = "") -> Iterator[Path]:
    """A folder that is gone after this, and also where this process is killed.

    Args:
        ended: what is then said on standard error.
    """
    folder = own_folder(prefix)
    command = [sys.executable, "-P", keeper.__file__, str(folder), ended]
    starter = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, text=True)
    assert starter.stdin is not None
    try:
        starter.wait()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError), starter.stdin as stdin:
            stdin.write("done")


def own_folder(prefix: str) -> Path:
    """A folder that belongs to this process: whoever sweeps removes it once that is gone."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    (folder / keeper.OWNER).write_text(identity(os.getpid()))
    return folder


def sweep_folders() -> None:
    """Remove the folders whose process was killed."""
    prefixes = (RAY_PREFIX, HOST_PREFIX)
    for folder in [path for prefix in prefixes for path in Path("/tmp").glob(f"{prefix}*")]:
        with contextlib.suppress(OSError, ValueError):
            if not is_alive((folder / keeper.OWNER).read_text()):
                shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Node:
    """A host as Ray knows it.

    Attributes:
        serves: whether trials may be placed there.
        loadgen: how many load processes may be.
    """

    id: str
    address: str
    name: str
    serves: bool
    loadgen: int

    def __str__(self) -> str:
        return f"{self.address} ({self.name})"


@dataclass(frozen=True)
class Look:
    """What a host says of itself.

    Attributes:
        lacks: why it cannot do its part, a sentence each.
    """

    node: Node
    host: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """What a trial must know of the host that it is on.

    Attributes:
        address: where its TorchServe answers predictions.
        archive: the model there.
        folder: for a trial's files until they are sent; None where they are written in the run's.
    """

    address: str
    archive: Path
    folder: Path | None = None


@dataclass(frozen=True)
class Places:
    """Where trials run.

    Attributes:
        by_node: by Ray's id of the node.
        load: how many load processes each node may have, by its id.
        doubts: of the hosts' likeness, a sentence each.
    """

    by_node: Mapping[str, Place]
    load: Mapping[str, int]
    doubts: tuple[str, ...] = ()

    def at_once(self, processes: int) -> int:
        """How many trials with so many load processes there is room for."""
        return min(len(self.by_node), sum(self.load.values()) // processes)

    def lacks(self, live: Sequence[Node], processes: int) -> str | None:
        """Why these nodes, of those that there were, have no room for a trial."""
        if not any(node.id in self.by_node for node in live):
            return "no host that served is left"
        there = sum(self.load.get(node.id, 0) for node in live)
        if there < processes:
            return f"there is room for {there} of {processes} load processes"
        return None


class Watch:
    """Whether the cluster has room for a trial, seen every few seconds."""

    def __init__(self, places: Places, processes: int):
        self._places, self._processes = places, processes
        self._looked_s = self._could_s = time.monotonic()

    def lost(self) -> str | None:
        """Why no trial can be placed, where that has been so for a minute."""
        if (now := time.monotonic()) - self._looked_s < _LOOK_S:
            return None
        self._looked_s = now
        if (why := self._places.lacks(nodes(), self._processes)) is None:
            self._could_s = now
        return why if now - self._could_s > _GONE_S else None


class Inbox:
    """Takes the files of trials on other hosts; an actor on the driver's."""

    def __init__(self, root: str):
        self._root = Path(root).resolve()

    def deliver(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Write files into a folder of the run."""
        into = Path(folder).resolve()
        for name, content in files.items():
            path = (into / name).resolve()
            if not path.is_relative_to(self._root):
                raise ValueError(f"{path} is not in {self._root}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


class Host:
    """An actor that sits on a host for as long as a run lasts."""

    def __init__(self) -> None:
        self._held = contextlib.ExitStack()
        atexit.register(self.close)

    def look(self, serves: bool, python: str | None, java: str | None) -> dict[str, Any]:
        """What this host is, and why it cannot serve where it is to: `Look`'s fields."""
        told: dict[str, Any] = {"host": describe_host()}
        if serves:
            try:
                told["versions"] = describe_versions(find_installation(python, java))
            except ServerError as error:
                told["lacks"] = (str(error),)
        return told

    def hold(self) -> str | None:
        """Keep other measurements out of this host; why that is impossible."""
        try:
            self._held.enter_context(only_one())
        except RunError as error:
            return str(error)
        return None

    def speed(self) -> float:
        """Units of work a second that all cores together can do; see `cores_speed`."""
        return cores_speed()

    def expect(self, name: str) -> None:
        """Make room for an archive, in a folder of this host's own."""
        sweep_folders()
        self._archive = self._held.enter_context(kept_folder(HOST_PREFIX)) / name

    def take(self, part: bytes) -> None:
        """Write its next part."""
        with self._archive.open("ab") as file:
            file.write(part)

    def arrived(self, sha256: str) -> str:
        """The folder, where all of the archive is there.

        Raises:
            RunError: what arrived is not what was sent.
        """
        with self._archive.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise RunError(f"the archive {self._archive.name} did not arrive whole")
        return str(self._archive.parent)

    def close(self) -> None:
        """Let others in, and leave nothing."""
        self._held.close()


def cores_speed() -> float:
    """Units of work a second: one core's best of several short slices, times the cores.

    A unit is what inference and its front end are made of: a product of matrices, and bytes
    that are gone over.
    """
    matrix = np.random.default_rng(0).random((96, 96), dtype=np.float32)
    text = bytes(range(256)) * 256
    best = 0.0
    for _ in range(_SLICES):
        units, started = 0, time.perf_counter()
        while (spent := time.perf_counter() - started) < _SLICE_S:
            zlib.crc32(text)
            np.einsum("ij,jk->ik", matrix, matrix)
            units += 1
        best = max(best, units / spent)
    return best * len(os.sched_getaffinity(0))


def nodes() -> list[Node]:
    """The live nodes of the cluster that this process is connected to."""
    found = []
    for each in ray.nodes():
        if each["Alive"]:
            has = each["Resources"]
            found.append(
                Node(
                    each["NodeID"],
                    each["NodeManagerAddress"],
                    each["NodeManagerHostname"],
                    has.get(SERVING_RESOURCE, 0) >= 1,
                    int(has.get(LOADGEN_RESOURCE, 0)),
                )
            )
    return sorted(found, key=lambda node: node.address)


def alone(archive: Archive, processes: int) -> Places:
    """This host, which is the whole cluster."""
    here = ray.get_runtime_context().get_node_id()
    return Places({here: Place(LOOPBACK, archive.path)}, {here: processes})


def load_hosts(looked: Sequence[Node], processes: int) -> list[Node]:
    """Where a trial's load processes may be: beside no server, where the other hosts have room."""
    found = [node for node in looked if node.loadgen]
    others = [node for node in found if not node.serves]
    return others if sum(node.loadgen for node in others) >= processes else found


class Survey:
    """The hosts of a cluster that others share, each with an actor on it, as a context.

    Args:
        python, java: those of the serving hosts, where the specification names them.
    """

    def __init__(self, python: str | None = None, java: str | None = None):
        self._python, self._java = python, java
        self._actors: dict[str, Any] = {}
        self.looks: list[Look] = []

    def __enter__(self) -> Survey:
        """Look at every host."""
        asked = []
        for node in nodes():
            actor = self._actors[node.id] = self._start(node)
            asked.append((node, actor.look.remote(node.serves, self._python, self._java)))
        for node, answer in asked:
            try:
                self.looks.append(Look(node, **ray.get(answer, timeout=_ANSWER_S)))
            except RayError as error:
                why = f"servetune does not run there: {first_line(str(error))}"
                self.looks.append(Look(node, lacks=(why,)))
        return self

    def __exit__(self, *error: object) -> None:
        for actor in self._actors.values():
            with contextlib.suppress(RayError):
                ray.get(actor.close.remote(), timeout=5)
            ray.kill(actor)

    def _start(self, node: Node) -> Any:
        where = NodeAffinitySchedulingStrategy(node.id, soft=False)
        return ray.remote(Host).options(num_cpus=0, scheduling_strategy=where).remote()

    @property
    def serving(self) -> list[Look]:
        """Those that serve."""
        return [look for look in self.looks if look.node.serves]

    def check(self, processes: int) -> None:
        """Refuse a cluster that cannot place a trial with so many load processes.

        Raises:
            RunError: with what each node lacks.
        """
        if lacks := lacking(self.looks, processes):
            raise RunError(f"the cluster cannot place a trial: {'; '.join(lacks)}")

    def _load_hosts(self, processes: int) -> list[Node]:
        return load_hosts([look.node for look in self.looks], processes)

    def recorded(self, processes: int) -> dict[str, Any]:
        """What a run's folder says of its hosts; they are alike in what matters to a trial.

        Args:
            processes: of load, that a trial has at most.
        """
        hosts = {str(look.node): dict(look.host) for look in self.serving}
        load = [str(node) for node in self._load_hosts(processes)]
        where = "on the server's host" if set(load) == set(hosts) else f"on {', '.join(load)}"
        return {
            "host": dict(self.serving[0].host),
            "hosts": hosts,
            "versions": dict(self.serving[0].versions),
            "placement": {"load": where},
        }

    def _hold(self) -> None:
        """Keep other measurements out of the serving hosts."""
        for look in self.serving:
            if wrong := ray.get(self._actors[look.node.id].hold.remote(), timeout=_ANSWER_S):
                raise RunError(f"{look.node}: {wrong}")

    def _speeds(self) -> dict[str, float]:
        """How fast the serving hosts are, by node; all at the same time."""
        answers = {look.node.id: self._actors[look.node.id].speed.remote() for look in self.serving}
        return dict(zip(answers, ray.get(list(answers.values()), timeout=_ANSWER_S), strict=True))

    def _send(self, to: Sequence[Node], archive: Archive) -> dict[str, Path]:
        """Bring hosts the archive, a part to all of them at a time; where it is, by node."""

        def ask(method: str, *arguments: Any) -> dict[str, Any]:
            asked = {n: getattr(self._actors[n.id], method).remote(*arguments) for n in to}
            answers = {}
            for node, answer in asked.items():
                try:
                    answers[node.id] = ray.get(answer, timeout=_ANSWER_S)
                except RayError as error:
                    why = first_line(str(error))
                    raise RunError(f"{node}: the archive did not get there: {why}") from None
            return answers

        ask("expect", archive.path.name)
        with archive.path.open("rb") as file:
            while part := file.read(_PART_BYTES):
                ask("take", ray.put(part))
        return {node: Path(folder) for node, folder in ask("arrived", archive.sha256).items()}

    def place(
        self, archive: Archive, run: Path, keep_unlike: bool, processes: int
    ) -> tuple[Places, Any]:
        """Take the hosts that are to serve, and bring them the archive.

        Args:
            run: the run's folder.
            keep_unlike: whether hosts serve that are not as fast as most.
            processes: of load, that a trial has at most.

        Returns:
            The hosts, and an inbox for trials' files in the run's folder.

        Raises:
            RunError: something else is measured on one, or the archive did not arrive.
        """
        self._hold()
        here = ray.get_runtime_context().get_node_id()
        speeds = self._speeds() if len(self.serving) > 1 else {}
        unlike = unlike_hosts(speeds)
        doubts, kept = [], []
        for look in self.serving:
            share = unlike.get(look.node.id)
            if share is None or keep_unlike:
                kept.append(look.node)
            if share is not None:
                what = "is kept" if keep_unlike else "is left out"
                doubts.append(f"{look.node} has {share:.0%} of the others' speed and {what}")
        folders = self._send([node for node in kept if node.id != here], archive)
        places = {}
        for node in kept:
            address = node.address if len(self.looks) > 1 else LOOPBACK
            folder = folders.get(node.id)
            path = archive.path if folder is None else folder / archive.path.name
            places[node.id] = Place(address, path, folder)
        load = {node.id: node.loadgen for node in self._load_hosts(processes)}
        where = NodeAffinitySchedulingStrategy(here, soft=False)
        inbox = ray.remote(Inbox).options(num_cpus=0, scheduling_strategy=where).remote(str(run))
        return Places(places, load, tuple(doubts)), inbox


def lacking(looks: Sequence[Look], processes: int) -> list[str]:
    """Why these hosts cannot run a trial with so many load processes, a sentence each."""
    found = [f"{look.node}: {lack}" for look in looks for lack in look.lacks]
    serving = [look for look in looks if look.node.serves and not look.lacks]
    if not any(look.node.serves for look in looks):
        has = ", ".join(f"{look.node}" for look in looks)
        found.append(
            f"no host has the resource {SERVING_RESOURCE} ({has}); "
            "servetune up --join ADDRESS --role serving starts one"
        )
    for name in SAME:
        versions = {look.versions.get(name) for look in serving}
        if len(versions) > 1:
            each = ", ".join(f"{look.versions.get(name)} on {look.node}" for look in serving)
            found.append(f"the serving hosts differ in {name}: {each}")
    if (there := sum(look.node.loadgen for look in looks)) < processes:
        each = ", ".join(f"{look.node.loadgen} on {look.node}" for look in looks)
        found.append(
            f"load.max_processes asks for {processes} load processes and there is room for "
            f"{there} ({each}); servetune up --join ADDRESS --role loadgen adds a host"
        )
    return found


def unlike_hosts(speeds: Mapping[str, float]) -> dict[str, float]:
    """The hosts that differ from most others, with their share of those others' speed.

    Most is the speed to which the most hosts are alike, the fastest such where there are several.
    """

    def company(speed: float) -> tuple[int, float]:
        return sum(abs(other / speed - 1) <= ALIKE for other in speeds.values()), speed

    usual = max(speeds.values(), key=company, default=0.0)
    return {n: speed / usual for n, speed in speeds.items() if abs(speed / usual - 1) > ALIKE}


def files_of(folder: Path) -> dict[str, bytes]:
    """A trial's files, by their names in its folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
