"""Tests of the load generator process as a child process."""

import pytest

from loadgen.measurement import Load
from loadgen.schedule import Constant
from tests.loadgen.conftest import fleet_of
from tests.stub import stub


@pytest.mark.timeout(60)
async def test_local_process_passes_long_messages_whole() -> None:
    """The bins of a window of hours do not fit into a pipe at once."""
    async with fleet_of(1) as fleet:
        with stub(batch=8) as url:
            await fleet.set_target(url)
            measured = await fleet.measure(
                Load(Constant(20), 5000.0), lambda so_far: so_far.scheduled >= 5
            )
    assert len(measured.begun) > 200_000
    assert measured.succeeded == measured.scheduled >= 5
