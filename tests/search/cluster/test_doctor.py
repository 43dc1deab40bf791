"""The findings of a cluster's hosts, without a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from search.cluster import doctor, ray_session, survey
from search.cluster.doctor import Finding, check_cluster, check_host
from search.cluster.host_report import HostReport
from tests.search.cluster.conftest import LOADGEN, SERVING, host_report


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[HostReport]:
    """The reports that a survey of any cluster finds."""
    found: list[HostReport] = []

    @contextlib.contextmanager
    def context(*arguments: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(reports=found)

    monkeypatch.setattr(ray_session, "ray_cluster", context)
    monkeypatch.setattr(survey, "Survey", context)
    return found


def test_check_cluster_reports_each_host(reports: list[HostReport]) -> None:
    reports += [SERVING, LOADGEN]
    assert check_cluster("10.0.0.1:6379", None, None) == [
        Finding(
            "10.0.0.1 (host1)",
            "serving; 2 cores; 4000 MiB of memory; servetune 1; torchserve 0.12.0; torch 2; "
            "java 17",
        ),
        Finding("10.0.0.2 (host2)", "loadgen (2); 2 cores; 4000 MiB of memory"),
    ]


def test_check_cluster_reports_each_problem_once(reports: list[HostReport]) -> None:
    problem = "no TorchServe"
    reports.append(host_report(1, problems=(problem,)))
    host, *cluster = check_cluster("10.0.0.1:6379", None, None)
    assert host == Finding("10.0.0.1 (host1)", "no role; 2 cores; 4000 MiB of memory", problem)
    assert [(f.subject, f.found) for f in cluster] == [("the cluster", "cannot place a trial")] * 2
    assert "no host has the role serving" in cluster[0].remedy
    assert "the cluster has room for 0" in cluster[1].remedy
    assert not any(finding.ok for finding in [host, *cluster])


def test_check_host_reports_cores_and_memory_under_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "available_cores", lambda: 1)
    monkeypatch.setattr(doctor, "available_memory_bytes", lambda: 100 << 20)
    findings = {f.subject: f for f in check_host("/no/python", "/no/java")}
    assert findings["cores"].found.startswith("1 usable") and not findings["cores"].ok
    assert findings["memory"].found == "100 MiB available" and not findings["memory"].ok
