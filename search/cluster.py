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
from search.errors import RunError
from search.host import describe_host, describe_versions, only_one
from search.text import first_line
from serving.archive import Archive
from serving.errors import ServerError
from serving.identity import identity, is_alive
from serving.installation import find_installation
from serving.server import LOOPBACK, sweep

SERVING_RESOURCE = "serving_host"
OBJECT_STORE_BYTES = 80 << 20
CLEANUP_S = 30
#: Folders that belong to a process, named in driver.pid in them.
RAY_PREFIX, HOST_PREFIX = "servetune.ray-", "servetune.host-"
#: Hosts whose speeds differ by more than this are not alike.
ALIKE = 0.1
#: Versions that must be the same on every serving host.
SAME = ("servetune", "torchserve", "python", "torch", "java")
_ANSWER_S, _CONNECT_S = 60.0, 5.0
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
        RunError: nothing answers at the address.
    """
    if address is not None:
        _check_that_one_answers(address)
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
        except (ConnectionError, RuntimeError, ValueError) as error:
            if address is None:
                raise
            raise RunError(
                f"cluster.address: this host is not part of a Ray cluster at {address} "
                f"({first_line(str(error))}); servetune up --join makes it one"
            ) from None
        yield folder


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
    (folder / "driver.pid").write_text(identity(os.getpid()))
    return folder


def sweep_folders() -> None:
    """Remove the folders whose process was killed."""
    prefixes = (RAY_PREFIX, HOST_PREFIX)
    for folder in [path for prefix in prefixes for path in Path("/tmp").glob(f"{prefix}*")]:
        with contextlib.suppress(OSError, ValueError):
            if not is_alive((folder / "driver.pid").read_text()):
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
        confirms_on: the address of the host that a confirmation keeps to.
        doubts: of the hosts' likeness, a sentence each.
    """

    by_node: Mapping[str, Place]
    confirms_on: str
    doubts: tuple[str, ...] = ()


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

    def receive(self, name: str, sha256: str, *parts: bytes) -> str:
        """Write the archive into a folder of this host's own; returns the folder.

        Raises:
            RunError: what arrived is not what was sent.
        """
        sweep_folders()
        folder = self._held.enter_context(kept_folder(HOST_PREFIX))
        path = folder / name
        with path.open("wb") as file:
            for part in parts:
                file.write(part)
        if hashlib.file_digest(path.open("rb"), "sha256").hexdigest() != sha256:
            raise RunError(f"the archive {name} did not arrive whole")
        return str(folder)

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


def alone(archive: Archive) -> Places:
    """This host, which is the whole cluster."""
    here = ray.get_runtime_context().get_node_id()
    (address,) = (node.address for node in nodes() if node.id == here)
    return Places({here: Place(LOOPBACK, archive.path)}, address)


class Survey:
    """The hosts of a cluster that others share, each with an actor on it, as a context.

    Args:
        python, java: those of the serving hosts, where the specification names them.
    """

    def __init__(self, python: str | None = None, java: str | None = None):
        self._python, self._java = python, java
        self._actors: dict[str, Any] = {}
        self._started: list[Any] = []
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
        for actor in self._started:
            with contextlib.suppress(RayError):
                ray.get(actor.close.remote(), timeout=5)
            ray.kill(actor)

    def _start(self, node: Node, resources: Mapping[str, float] | None = None) -> Any:
        where = NodeAffinitySchedulingStrategy(node.id, soft=False)
        options = {"num_cpus": 0, "resources": dict(resources or {}), "scheduling_strategy": where}
        actor = ray.remote(Host).options(**options).remote()
        self._started.append(actor)
        return actor

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

    def recorded(self) -> dict[str, Any]:
        """What a run's folder says of its hosts; they are alike in what matters to a trial."""
        hosts = {str(look.node): dict(look.host) for look in self.serving}
        load = [str(look.node) for look in self.looks if look.node.loadgen]
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

    def place(self, archive: Archive, run: Path, keep_unlike: bool) -> tuple[Places, Any]:
        """Take the hosts that are to serve, and bring them the archive.

        Args:
            run: the run's folder.
            keep_unlike: whether hosts serve that are not as fast as most.

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
            if (share := unlike.get(look.node.id)) is None:
                kept.append(look.node)
                continue
            what = "is kept" if keep_unlike else "is left out"
            doubts.append(f"{look.node} has {share:.0%} of the others' speed and {what}")
            if keep_unlike:
                kept.append(look.node)
            else:
                self._start(look.node, {SERVING_RESOURCE: 1.0})  # Then no trial is placed there.
        parts = [ray.put(part) for part in _parts(archive.path)]
        places = {}
        for node in kept:
            address = node.address if len(self.looks) > 1 else LOOPBACK
            if node.id == here:
                places[node.id] = Place(address, archive.path)
                continue
            received = self._actors[node.id].receive.remote(
                archive.path.name, archive.sha256, *parts
            )
            try:
                folder = Path(ray.get(received, timeout=None))
            except RayError as error:
                why = first_line(str(error))
                raise RunError(f"{node}: the archive did not get there: {why}") from None
            places[node.id] = Place(address, folder / archive.path.name, folder)
        where = NodeAffinitySchedulingStrategy(here, soft=False)
        inbox = ray.remote(Inbox).options(num_cpus=0, scheduling_strategy=where).remote(str(run))
        return Places(places, kept[0].address, tuple(doubts)), inbox


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


def _parts(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(_PART_BYTES):
            yield part


def files_of(folder: Path) -> dict[str, bytes]:
    """A trial's files, by their names in its folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
