"""Problems and speeds of a cluster's hosts."""

from __future__ import annotations

import pytest

from search.cluster.host_report import HostReport, Problem, find_problems, heterogeneous_hosts
from tests.search.cluster.conftest import LOADGEN, SERVING, VERSIONS, host_report


def test_find_problems_accepts_cluster_with_room_for_a_trial() -> None:
    assert find_problems([SERVING, LOADGEN], 2) == []
    assert find_problems([host_report(1, serves=True, loadgen=64)], 4) == []


@pytest.mark.parametrize(
    ("reports", "processes", "reason"),
    [
        pytest.param(
            [LOADGEN],
            2,
            "no host has the role serving (hosts: 10.0.0.2 (host2)); "
            "start one with servetune up --join ADDRESS --role serving",
            id="no serving host",
        ),
        pytest.param(
            [SERVING],
            1,
            "a trial may need 1 load generator processes (load.max_processes), but the cluster has "
            "room for 0 (0 on 10.0.0.1 (host1)); "
            "add a host with servetune up --join ADDRESS --role loadgen",
            id="no load generator host",
        ),
        pytest.param(
            [SERVING, LOADGEN],
            3,
            "a trial may need 3 load generator processes (load.max_processes), but the cluster has "
            "room for 2 (0 on 10.0.0.1 (host1), 2 on 10.0.0.2 (host2)); "
            "add a host with servetune up --join ADDRESS --role loadgen",
            id="too few load generator processes",
        ),
        pytest.param(
            [SERVING, LOADGEN, host_report(3, serves=True, versions={**VERSIONS, "torch": "3"})],
            2,
            "the serving hosts have different versions of torch: "
            "2 on 10.0.0.1 (host1), 3 on 10.0.0.3 (host3); install the same version on all of them",
            id="different versions",
        ),
    ],
)
def test_find_problems_reports_problem_of_the_cluster(
    reports: list[HostReport], processes: int, reason: str
) -> None:
    (problem,) = find_problems(reports, processes)
    assert problem == Problem(None, reason)
    assert str(problem) == reason


def test_find_problems_reports_problem_of_a_host() -> None:
    broken = host_report(3, serves=True, versions={}, problems=("no TorchServe",))
    (problem,) = find_problems([SERVING, LOADGEN, broken], 2)
    assert problem == Problem(broken.node, "no TorchServe")
    assert str(problem) == "10.0.0.3 (host3): no TorchServe"


@pytest.mark.parametrize(
    ("speeds", "shares"),
    [
        pytest.param({}, {}, id="no hosts"),
        pytest.param({"a": 100.0, "b": 95.0}, {}, id="within the tolerance"),
        pytest.param({"a": 100.0, "b": 104.0, "c": 80.0}, {"c": 80 / 104}, id="one is slower"),
        pytest.param({"a": 100.0, "b": 200.0, "c": 103.0}, {"b": 200 / 103}, id="one is faster"),
        pytest.param({"a": 100.0, "b": 50.0}, {"b": 0.5}, id="the slower one of two"),
    ],
)
def test_heterogeneous_hosts_differ_from_most(
    speeds: dict[str, float], shares: dict[str, float]
) -> None:
    assert heterogeneous_hosts(speeds) == pytest.approx(shares)
