"""Placement and its observation, without a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.cluster import placement
from search.cluster.placement import ClusterMonitor, HostPlacement, Placement, loadgen_nodes
from tests.search.cluster.conftest import LOADGEN, SERVING, host_report


def placement_on(*serving: str, **loadgen: int) -> Placement:
    hosts = {node_id: HostPlacement("10.0.0.1", Path("a.mar")) for node_id in serving}
    return Placement(hosts, loadgen)


def test_loadgen_nodes_avoid_serving_hosts_if_the_others_have_room() -> None:
    both, load = host_report(1, serves=True, loadgen=4).node, host_report(2, loadgen=2).node
    assert loadgen_nodes([both, load], 2) == [load]
    assert loadgen_nodes([both, load], 3) == [both, load]
    assert loadgen_nodes([both], 2) == [both]


@pytest.mark.parametrize(
    ("serving", "processes", "trials"),
    [
        pytest.param(["a"], 4, 1, id="one serving host"),
        pytest.param(["a", "b"], 4, 2, id="two serving hosts"),
        pytest.param(["a", "b"], 3, 1, id="too few load generator processes for two trials"),
    ],
)
def test_placement_limits_concurrent_trials(
    serving: list[str], processes: int, trials: int
) -> None:
    assert placement_on(*serving, c=processes).max_concurrent_trials(2) == trials


def test_cluster_monitor_reports_shortage_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, live = 0.0, [SERVING.node, LOADGEN.node]
    changes = {
        100: [],
        140: [SERVING.node, LOADGEN.node],
        300: [LOADGEN.node],
        450: [SERVING.node],
    }
    monkeypatch.setattr(placement.time, "monotonic", lambda: now_s)
    monkeypatch.setattr(placement, "live_nodes", lambda: live)
    monitor = ClusterMonitor(placement_on("node1", node2=2), 2)
    shortages = {}
    for now_s in range(0, 600, 5):
        live = changes.get(now_s, live)
        shortages[now_s] = monitor.persistent_shortage()
    assert {reason for second, reason in shortages.items() if second <= 355} == {None}
    assert shortages[400] == "no serving host is left"
    assert shortages[595] == "there is room for 0 of 2 load generator processes"
