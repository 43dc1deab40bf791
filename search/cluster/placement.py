"""Which hosts serve, which generate load, and whether there is room for a trial."""

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
_CHECK_INTERVAL_S = 5.0
#: A host that is missing for less time than this may come back.
_MAX_SHORTAGE_S = 60.0


@dataclass(frozen=True)
class Node:
    """A host as Ray reports it.

    Attributes:
        id: Ray's id of the node.
        serves: whether trials may be placed on it.
        loadgen: how many load generator processes may be placed on it.
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
    """A serving host's address and files.

    Attributes:
        address: where its TorchServe answers predictions.
        archive: the model archive on that host.
        folder: receives a trial's files until they are sent to the driver; None on the driver's
            host, where they are written to the run's folder directly.
        others: the archives of the other models on that host, in the order of the site's.
    """

    address: str
    archive: Path
    folder: Path | None = None
    others: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Placement:
    """Where the trials of a run are placed.

    Attributes:
        serving: the serving hosts, by node id.
        loadgen: how many load generator processes each node may run, by node id.
        warnings: one sentence for each serving host that is faster or slower than most.
    """

    serving: Mapping[str, HostPlacement]
    loadgen: Mapping[str, int]
    warnings: tuple[str, ...] = ()

    def max_concurrent_trials(self, processes: int) -> int:
        """Return how many trials fit, each with this number of load generator processes."""
        return min(len(self.serving), sum(self.loadgen.values()) // processes)

    def shortage(self, live: Sequence[Node], processes: int) -> str | None:
        """Return why these nodes have no room for a trial; None if they have.

        Args:
            live: the nodes that are left.
            processes: load generator processes of a trial.
        """
        if not any(node.id in self.serving for node in live):
            return "no serving host is left"
        room = sum(self.loadgen.get(node.id, 0) for node in live)
        if room < processes:
            return f"there is room for {room} of {processes} load generator processes"
        return None


class ClusterMonitor:
    """Watches whether the cluster has room for a trial.

    Args:
        processes: load generator processes of a trial.
    """

    def __init__(self, placement: Placement, processes: int):
        self._placement, self._processes = placement, processes
        self._checked_s = self._had_room_s = time.monotonic()

    def persistent_shortage(self) -> str | None:
        """Return why no trial can be placed, if that has lasted for a minute; else None.

        The cluster is checked once in 5 s; calls in between return None.
        """
        now = time.monotonic()
        if now - self._checked_s < _CHECK_INTERVAL_S:
            return None
        self._checked_s = now
        shortage = self._placement.shortage(live_nodes(), self._processes)
        if shortage is None:
            self._had_room_s = now
        return shortage if now - self._had_room_s > _MAX_SHORTAGE_S else None


def live_nodes() -> list[Node]:
    """Return the live nodes of the connected cluster, sorted by address."""
    nodes = []
    for entry in ray.nodes():
        if entry["Alive"]:
            resources = entry["Resources"]
            nodes.append(
                Node(
                    id=entry["NodeID"],
                    address=entry["NodeManagerAddress"],
                    name=entry["NodeManagerHostname"],
                    serves=resources.get(SERVING_RESOURCE, 0) >= 1,
                    loadgen=int(resources.get(LOADGEN_RESOURCE, 0)),
                )
            )
    return sorted(nodes, key=lambda node: node.address)


def single_host_placement(archive: Archive, processes: int) -> Placement:
    """Return the placement of a cluster that consists of this host."""
    node_id = ray.get_runtime_context().get_node_id()
    return Placement({node_id: HostPlacement(LOOPBACK, archive.path)}, {node_id: processes})


def loadgen_nodes(nodes: Sequence[Node], processes: int) -> list[Node]:
    """Return the nodes on which a trial's load generator processes may run.

    Serving hosts are among them only if the other hosts have too little room.
    """
    candidates = [node for node in nodes if node.loadgen]
    separate = [node for node in candidates if not node.serves]
    return separate if sum(node.loadgen for node in separate) >= processes else candidates
