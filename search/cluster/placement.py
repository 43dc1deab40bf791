"""Which hosts serve, which make load, and whether there is room for a trial."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray

from loadgen.ray_process import LOADGEN_RESOURCE
from serving.archive import Archive
from serving.ports import LOOPBACK

SERVING_RESOURCE = "serving_host"
#: So often it is seen whether hosts are left, and for so long they may be away.
_LOOK_S, _GONE_S = 5.0, 60.0


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
class HostPlacement:
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
class Placement:
    """Where trials run.

    Attributes:
        by_node: by Ray's id of the node.
        load: how many load processes each node may have, by its id.
        warnings: of the hosts' likeness, a sentence each.
    """

    by_node: Mapping[str, HostPlacement]
    load: Mapping[str, int]
    warnings: tuple[str, ...] = ()

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


class ClusterMonitor:
    """Whether the cluster has room for a trial, seen every few seconds."""

    def __init__(self, places: Placement, processes: int):
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


def single_host_placement(archive: Archive, processes: int) -> Placement:
    """This host, which is the whole cluster."""
    here = ray.get_runtime_context().get_node_id()
    return Placement({here: HostPlacement(LOOPBACK, archive.path)}, {here: processes})


def load_hosts(looked: Sequence[Node], processes: int) -> list[Node]:
    """Where a trial's load processes may be: beside no server, where the other hosts have room."""
    found = [node for node in looked if node.loadgen]
    others = [node for node in found if not node.serves]
    return others if sum(node.loadgen for node in others) >= processes else found
