"""Runs over the wire: hosts with addresses of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.conftest import Lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
WriteStudy = Callable[..., Path]


def test_a_run_on_two_serving_hosts(lab: Lab, study: WriteStudy, tmp_path: Path) -> None:
    # They share this machine's cores: how fast each looks is chance.
    path = study(
        search={"trials": 6},
        load={"processes": 2, "max_processes": 2},
        cluster={"address": lab.cluster, "unlike_hosts": "keep"},
    )
    before = lab.bytes_through("serve1")
    shown = lab.servetune("head", "doctor", "--cluster", lab.cluster).communicate(timeout=120)[0]
    assert "10.77.0.11 (serve1)" in shown and "loadgen (2)" in shown
    run = lab.servetune("head", "tune", path, "--confirm", "2")
    said = run.communicate(timeout=500)[0]
    assert run.returncode == 0, said
    (folder,) = (tmp_path / "runs").iterdir()
    results = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    assert {r["host"]["address"] for r in results} == {"10.77.0.11", "10.77.0.12"}
    for result in results:
        files = {p.name for p in (folder / "trials" / str(result["number"])).iterdir()}
        assert {"config.properties", "environment", "torchserve.log"} <= files
    received, sent = (
        now - then for now, then in zip(lab.bytes_through("serve1"), before, strict=True)
    )
    assert received > 100_000 and sent > 100_000, "the load crosses the network"
