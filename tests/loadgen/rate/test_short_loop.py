"""Short closed loops on simulated servers."""

import pytest

from benchmarks.law import Law
from benchmarks.simulated import SimulatedStub
from loadgen.rate.goal import Goal
from loadgen.rate.short_loop import MAX_SHORT_S, SHORT_S, measure_short_loop, short_loop_s
from loadgen.schedule import Closed
from tests.simulated import SimulatedServers


@pytest.mark.parametrize("batch", [1, 8, 64])
async def test_measure_short_loop_finds_the_capacity_in_about_its_expected_time(batch: int) -> None:
    law = Law(workers=2, batch=batch, delay_s=0.02, service_s=0.05, each_s=0.01)
    server, cycle = SimulatedStub(law, seed=0), 2 * batch
    window, estimate = await measure_short_loop(server, Goal(), cycle, 2 * cycle)
    assert isinstance(window.load.schedule, Closed) and window.load.schedule.users == 2 * cycle
    assert estimate is not None and estimate.rps == pytest.approx(law.capacity_rps, rel=0.03)
    expected_s = short_loop_s(cycle / law.capacity_rps)
    assert SHORT_S <= window.span_s <= 1.5 * expected_s


async def test_measure_short_loop_has_no_estimate_of_a_server_that_is_too_slow() -> None:
    window, estimate = await measure_short_loop(SimulatedServers(30.0), Goal(), 1, 2)
    assert estimate is None and window.span_s <= 2 * MAX_SHORT_S


def test_short_loop_s_grows_with_the_time_of_a_round() -> None:
    assert short_loop_s(0.01) == SHORT_S < short_loop_s(1.0) < short_loop_s(2.0)
