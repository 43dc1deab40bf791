"""The hosts of a cluster: what each has and lacks, and which are alike."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.cluster.host_actor import Host
from search.cluster.placement import (
    SERVING_RESOURCE,
    HostPlacement,
    Node,
    Placement,
    load_hosts,
    nodes,
)
from search.cluster.ray_session import _ANSWER_S
from search.cluster.transfer import _PART_BYTES, Inbox
from search.errors import RunError, first_line
from serving.archive import Archive
from serving.ports import LOOPBACK

#: Hosts whose speeds differ by more than this are not alike.
ALIKE = 0.1
#: Versions that must be the same on every serving host.
SAME = ("servetune", "torchserve", "python", "torch", "java")


@dataclass(frozen=True)
class HostReport:
    """What a host says of itself.

    Attributes:
        lacks: why it cannot do its part, a sentence each.
    """

    node: Node
    host: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    lacks: tuple[str, ...] = ()


class Survey:
    """The hosts of a cluster that others share, each with an actor on it, as a context.

    Args:
        python, java: those of the serving hosts, where the specification names them.
    """

    def __init__(self, python: str | None = None, java: str | None = None):
        self._python, self._java = python, java
        self._actors: dict[str, Any] = {}
        self.looks: list[HostReport] = []

    def __enter__(self) -> Survey:
        """Look at every host."""
        asked = []
        for node in nodes():
            actor = self._actors[node.id] = self._start(node)
            asked.append((node, actor.look.remote(node.serves, self._python, self._java)))
        for node, answer in asked:
            try:
                self.looks.append(HostReport(node, **ray.get(answer, timeout=_ANSWER_S)))
            except RayError as error:
                why = f"servetune does not run there: {first_line(str(error))}"
                self.looks.append(HostReport(node, lacks=(why,)))
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
    def serving(self) -> list[HostReport]:
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

    def _lock_hosts(self) -> None:
        """Keep other measurements out of the serving hosts."""
        for look in self.serving:
            if wrong := ray.get(self._actors[look.node.id].lock_host.remote(), timeout=_ANSWER_S):
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

        ask("begin_upload", archive.path.name)
        with archive.path.open("rb") as file:
            while part := file.read(_PART_BYTES):
                ask("write_chunk", ray.put(part))
        return {node: Path(folder) for node, folder in ask("finish_upload", archive.sha256).items()}

    def place(
        self, archive: Archive, run: Path, keep_heterogeneous: bool, processes: int
    ) -> tuple[Placement, Any]:
        """Take the hosts that are to serve, and bring them the archive.

        Args:
            run: the run's folder.
            keep_heterogeneous: whether hosts serve that are not as fast as most.
            processes: of load, that a trial has at most.

        Returns:
            The hosts, and an inbox for trials' files in the run's folder.

        Raises:
            RunError: something else is measured on one, or the archive did not arrive.
        """
        self._lock_hosts()
        here = ray.get_runtime_context().get_node_id()
        speeds = self._speeds() if len(self.serving) > 1 else {}
        unlike = heterogeneous_hosts(speeds)
        warnings, kept = [], []
        for look in self.serving:
            share = unlike.get(look.node.id)
            if share is None or keep_heterogeneous:
                kept.append(look.node)
            if share is not None:
                what = "is kept" if keep_heterogeneous else "is left out"
                warnings.append(f"{look.node} has {share:.0%} of the others' speed and {what}")
        folders = self._send([node for node in kept if node.id != here], archive)
        places = {}
        for node in kept:
            address = node.address if len(self.looks) > 1 else LOOPBACK
            folder = folders.get(node.id)
            path = archive.path if folder is None else folder / archive.path.name
            places[node.id] = HostPlacement(address, path, folder)
        load = {node.id: node.loadgen for node in self._load_hosts(processes)}
        where = NodeAffinitySchedulingStrategy(here, soft=False)
        inbox = ray.remote(Inbox).options(num_cpus=0, scheduling_strategy=where).remote(str(run))
        return Placement(places, load, tuple(warnings)), inbox


def lacking(looks: Sequence[HostReport], processes: int) -> list[str]:
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


def heterogeneous_hosts(speeds: Mapping[str, float]) -> dict[str, float]:
    """The hosts that differ from most others, with their share of those others' speed.

    Most is the speed to which the most hosts are alike, the fastest such where there are several.
    """

    def company(speed: float) -> tuple[int, float]:
        return sum(abs(other / speed - 1) <= ALIKE for other in speeds.values()), speed

    usual = max(speeds.values(), key=company, default=0.0)
    return {n: speed / usual for n, speed in speeds.items() if abs(speed / usual - 1) > ALIKE}
