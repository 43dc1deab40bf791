"""Load processes in a real local Ray, against a server of known capacity."""

import os
from collections.abc import Iterator

import psutil
import pytest

from loadgen.fleet import Fleet
from loadgen.measurement import Load
from loadgen.payloads import Payload
from loadgen.schedule import Constant
from search.study import local_cluster
from tests.real.conftest import processes
from tests.stub import stub

PAYLOADS = [Payload(b"{}", {"Content-Type": "application/json"}, contains="ok")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with local_cluster(2):
        yield


async def test_processes_share_one_schedule_and_are_merged(cluster: None) -> None:
    fleet = Fleet(PAYLOADS, processes=2)
    try:
        with stub(batch=8, service_s=0.01) as url:
            await fleet.aim(url)
            measured = await fleet.measure(Load(Constant(100), 2.0))
            ended = await fleet.measure(
                Load(Constant(100), 30.0), lambda so_far: so_far.scheduled >= 50
            )
        assert len(processes("ray::_LoadActor")) == 2
    finally:
        fleet.close()
    assert measured.scheduled == measured.sent == measured.succeeded == 200
    assert len(measured.latency) == 200
    assert 50 <= ended.scheduled < 1000


async def test_a_raised_priority_lasts_until_the_next_aim(cluster: None) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may raise a priority")
    fleet = Fleet(PAYLOADS)
    try:
        with stub(batch=8, service_s=0.01) as url:
            await fleet.aim(url)
            await fleet.measure(Load(Constant(20), 0.5))
            assert await fleet.raise_priority()
            await fleet.measure(Load(Constant(20), 0.5))
            (pid,) = processes("ray::_LoadActor")
            assert _best_nice(pid) == -10
            await fleet.aim(url)
            assert _best_nice(pid) == 0
    finally:
        fleet.close()


def _best_nice(pid: int) -> int:
    threads = psutil.Process(pid).threads()
    return min(os.getpriority(os.PRIO_PROCESS, thread.id) for thread in threads)
