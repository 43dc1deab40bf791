"""Probes of a running server agree with fresh servers, and nothing stays behind."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from loadgen.fleet import Fleet
from loadgen.local_process import local_processes
from loadgen.payloads import Payload
from loadgen.rate.goal import Depth, Goal
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import TrialResult, TrialState
from search.trial.runner import run_trial
from search.trial.server_probe import ProbeKind, ServerProbe
from serving.configuration.config import ServerConfig
from serving.errors import ServerError
from serving.server import TorchServe
from serving.site import Site
from tests.real.conftest import wait_for

pytestmark = pytest.mark.timeout(300)
MakeSite = Callable[..., Site]
#: Waits 40 ms for a batch, and 10 ms more for each of its requests.
LINEAR = """
import time

def handle(data, context):
    if data is None:
        return None
    time.sleep(0.04 + 0.01 * len(data))
    return [{"ok": True} for _ in data]
"""
CONFIG = ServerConfig(
    workers=4,
    batch_size=8,
    max_batch_delay_ms=20,
    netty_threads=2,
    netty_client_threads=2,
    mkl_threads=1,
)
PROBES = (
    ServerProbe(ProbeKind.BATCH, 1, 4),
    ServerProbe(ProbeKind.WORKERS, 1, 8),
    ServerProbe(ProbeKind.WORKERS, 2, 8),
)


async def screen(
    site: Site, config: ServerConfig, folder: Path, probes: tuple[ServerProbe, ...] = ()
) -> TrialResult:
    request = TrialRequest(
        0, TrialOrigin.SAMPLED, config, depth=Depth.ESTIMATE, server_probes=probes
    )
    fleet = Fleet(local_processes([Payload(b"{}")]))
    try:
        return await run_trial(request, site, Goal(), fleet, folder)
    finally:
        fleet.close()


@pytest.mark.slow
async def test_probes_agree_with_fresh_servers_and_leave_the_trial_alone(
    site: MakeSite, tmp_path: Path
) -> None:
    place = site(LINEAR)
    probed = await screen(place, CONFIG, tmp_path / "probed", PROBES)
    assert probed.state is TrialState.COMPLETE, probed.cause
    records = {(p.workers, p.batch_size): p for p in probed.server_probes}
    assert list(records) == [(2, 8), (1, 8), (1, 4)], "scaling down only"
    assert not any(p.problem for p in records.values()), records
    # The trial's own figures are those of four workers.
    assert probed.server.workers_ready == 4 and probed.server.batch_capacity == 32
    assert len(probed.server.handler_times) == 1
    assert "probes" in probed.timing.phases_s
    for (workers, batch_size), record in records.items():
        config = replace(CONFIG, workers=workers, batch_size=batch_size)
        fresh = await screen(place, config, tmp_path / f"{workers}-{batch_size}")
        assert record.capacity is not None and fresh.capacity_rps
        assert record.capacity.rps == pytest.approx(fresh.capacity_rps, rel=0.25), record


async def test_scale_down_ends_the_workers_that_leave(site: MakeSite, tmp_path: Path) -> None:
    async with TorchServe(CONFIG, site(LINEAR), tmp_path / "server") as server:
        before = server.worker_pids
        await server.scale_down(1)
        (left,) = server.worker_pids
        assert left in before and server.batch_capacity == 8
        gone = [Path(f"/proc/{pid}") for pid in before - {left}]
        wait_for(lambda: not any(path.exists() for path in gone), 10, "the others have ended")
        assert await server.guard(server.counters()) is not None, "it is not a lost worker"


async def test_scale_down_reports_a_management_api_that_does_not_answer(
    site: MakeSite, tmp_path: Path
) -> None:
    async with TorchServe(CONFIG, site(LINEAR), tmp_path / "server") as server:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            assert server._api is not None
            server._api.ports = replace(server.ports, management=closed.getsockname()[1])
            with pytest.raises(ServerError, match="echo was not scaled down: the management API"):
                await server.scale_down(1)
