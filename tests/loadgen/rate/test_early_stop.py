"""Tests of ending a window early."""

import pytest

from benchmarks.law import Law
from benchmarks.simulated import SimulatedStub
from loadgen.measurement import Load
from loadgen.rate.early_stop import ClosedLoopEnd, EarlyStop
from loadgen.rate.goal import Goal
from loadgen.schedule import Closed, Constant
from tests.simulated import SimulatedServers


@pytest.mark.parametrize(("rate", "lasts_s"), [(150, 5), (97, 10)])
async def test_early_stop_ends_only_an_overloaded_window(rate: float, lasts_s: float) -> None:
    load = Load(Constant(rate), 10)
    window = await SimulatedServers(0.01).measure(load, EarlyStop(Goal(), 10))
    assert window.span_s == pytest.approx(lasts_s, abs=0.3)


@pytest.mark.parametrize(
    ("batch_s", "least_s", "most_s"),
    [
        pytest.param(0.1, 8, 9, id="fast: the least duration"),
        pytest.param(2.0, 12, 13, id="slow: six rounds"),
        pytest.param(6.0, 36, 37, id="slower than the limit of the warm-up: six rounds"),
        pytest.param(20.0, 60, 60, id="too slow: the limit"),
    ],
)
async def test_closed_loop_end_scales_with_the_batches(
    batch_s: float, least_s: float, most_s: float
) -> None:
    server = SimulatedStub(Law(workers=2, batch=8, service_s=batch_s), seed=0)
    load = Load(Closed(32), 60, timeout_s=100, cycle_requests=16)
    window = await server.measure(load, ClosedLoopEnd(Goal()))
    assert least_s <= window.span_s <= most_s


async def test_closed_loop_end_does_not_wait_for_a_server_that_fails() -> None:
    server = SimulatedServers(0.01, fail_every=1)
    window = await server.measure(Load(Closed(8), 60), ClosedLoopEnd(Goal()))
    assert window.span_s < 4


@pytest.mark.parametrize(
    ("hopeless_rps", "lasts_s"),
    [
        pytest.param(None, 8, id="nothing to beat"),
        pytest.param(110.0, 8, id="within the margin of the rate to beat"),
        pytest.param(200.0, 4, id="half of the rate to beat"),
    ],
)
async def test_closed_loop_end_is_early_only_if_the_rate_to_beat_is_out_of_reach(
    hopeless_rps: float | None, lasts_s: float
) -> None:
    load = Load(Closed(8), 60)
    window = await SimulatedServers(0.01).measure(load, ClosedLoopEnd(Goal(), hopeless_rps))
    assert window.span_s == pytest.approx(lasts_s, abs=0.5)
