"""Reports of hosts that do not exist."""

from __future__ import annotations

from search.cluster.host_report import HostReport
from search.cluster.placement import Node

VERSIONS = {"servetune": "1", "torchserve": "0.12.0", "python": "3.11", "torch": "2", "java": "17"}


def host_report(
    number: int, serves: bool = False, loadgen: int = 0, **fields: object
) -> HostReport:
    node = Node(f"node{number}", f"10.0.0.{number}", f"host{number}", serves, loadgen)
    given = {"versions": VERSIONS if serves else {}, **fields}
    return HostReport(node, {"cores": 2, "memory_mb": 4000}, **given)  # type: ignore[arg-type]


SERVING, LOADGEN = host_report(1, serves=True), host_report(2, loadgen=2)
