"""Reports of a cluster's hosts, and the problems that keep a trial from being placed. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from search.cluster.placement import Node

#: Hosts whose speeds differ by more than this share are heterogeneous.
SPEED_TOLERANCE = 0.1
#: Versions that must be the same on every serving host.
SAME_VERSIONS = ("servetune", "torchserve", "python", "torch", "java")


@dataclass(frozen=True)
class HostReport:
    """A host's facts and problems.

    Attributes:
        host: processor, cores, memory and the like; empty if the host did not report.
        versions: of the software on it; empty if it does not serve.
        problems: reasons why it cannot do its part, one sentence each.
    """

    node: Node
    host: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Problem:
    """A reason why the cluster cannot place a trial.

    Attributes:
        node: the host that has the problem; None if it concerns the whole cluster.
    """

    node: Node | None
    reason: str

    def __str__(self) -> str:
        return self.reason if self.node is None else f"{self.node}: {self.reason}"


def find_problems(reports: Sequence[HostReport], processes: int) -> list[Problem]:
    """Return why these hosts cannot run a trial with this number of load generator processes."""
    problems = [Problem(report.node, reason) for report in reports for reason in report.problems]
    if not any(report.node.serves for report in reports):
        hosts = ", ".join(str(report.node) for report in reports)
        problems.append(
            Problem(
                None,
                f"no host has the role serving (hosts: {hosts}); "
                "start one with servetune up --join ADDRESS --role serving",
            )
        )
    serving = [report for report in reports if report.node.serves and not report.problems]
    for name in SAME_VERSIONS:
        if len({report.versions.get(name) for report in serving}) > 1:
            versions = ", ".join(f"{r.versions.get(name)} on {r.node}" for r in serving)
            problems.append(
                Problem(
                    None,
                    f"the serving hosts have different versions of {name}: {versions}; "
                    "install the same version on all of them",
                )
            )
    room = sum(report.node.loadgen for report in reports)
    if room < processes:
        room_by_host = ", ".join(f"{report.node.loadgen} on {report.node}" for report in reports)
        problems.append(
            Problem(
                None,
                f"a trial may need {processes} load generator processes (load.max_processes), but "
                f"the cluster has room for {room} ({room_by_host}); "
                "add a host with servetune up --join ADDRESS --role loadgen",
            )
        )
    return problems


def heterogeneous_hosts(speeds: Mapping[str, float]) -> dict[str, float]:
    """Return the hosts whose speed differs from the usual one, with their share of it.

    The usual speed is the one that has the most hosts within `SPEED_TOLERANCE`; the fastest such
    speed if several have the same number.

    Args:
        speeds: units of work per second, by node id.
    """

    def similar_hosts(speed: float) -> tuple[int, float]:
        return sum(abs(other / speed - 1) <= SPEED_TOLERANCE for other in speeds.values()), speed

    usual = max(speeds.values(), key=similar_hosts, default=0.0)
    shares = {node_id: speed / usual for node_id, speed in speeds.items()}
    return {n: share for n, share in shares.items() if abs(share - 1) > SPEED_TOLERANCE}
