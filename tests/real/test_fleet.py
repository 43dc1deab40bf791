"""Load generator processes in a real local Ray, against a server of known capacity."""

from collections.abc import Iterator

import pytest

from loadgen.errors import GeneratorDefectError
from loadgen.fleet import Fleet
from loadgen.measurement import Load
from loadgen.payloads import Payload
from loadgen.ray_process import ray_processes
from loadgen.schedule import Constant
from search.cluster.ray_session import ray_cluster
from tests.loadgen.payloads.broken import broken_payload
from tests.real.conftest import processes
from tests.stub import stub

PAYLOADS = [Payload(b"{}", {"Content-Type": "application/json"}, contains="ok")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray cluster with room for two load generator processes."""
    with ray_cluster(processes=2):
        yield


async def test_ray_processes_share_one_schedule(cluster: None) -> None:
    fleet = Fleet(ray_processes(PAYLOADS), processes=2)
    try:
        with stub(batch=8, service_s=0.01) as url:
            await fleet.set_target(url)
            whole = await fleet.measure(Load(Constant(100), 2.0))
            ended_early = await fleet.measure(
                Load(Constant(100), 30.0), until=lambda so_far: so_far.scheduled >= 50
            )
        assert len(processes("ray::_LoadActor")) == 2
    finally:
        fleet.close()
    assert whole.scheduled == whole.sent == whole.succeeded == 200
    assert len(whole.latency) == 200
    assert 50 <= ended_early.scheduled < 100 * 30


async def test_ray_processes_report_their_own_defect(cluster: None) -> None:
    fleet = Fleet(ray_processes([broken_payload()]))
    try:
        with stub() as url:
            await fleet.set_target(url)
            with pytest.raises(GeneratorDefectError, match="TypeError") as caught:
                await fleet.measure(Load(Constant(50), 60.0))
    finally:
        fleet.close()
    assert caught.value.summary.startswith("a defect of the load generator ended the measurement")
