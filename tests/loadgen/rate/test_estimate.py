"""Tests of the throughput between batch ends."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.law import Law
from benchmarks.simulated import SimulatedStub
from benchmarks.wander import Wander
from loadgen.measurement import BIN_S, Load, Measurement
from loadgen.rate.estimate import Estimate, estimate_of, pooled
from loadgen.schedule import Closed
from tests.simulated import SimulatedServers


async def closed_loop(law: Law, seconds: float, wander: Wander | None = None) -> Measurement:
    cycle = law.workers * law.batch
    server = SimulatedStub(law, seed=1, wander=wander)
    return await server.measure(Load(Closed(2 * cycle), seconds, 100, cycle))


@pytest.mark.parametrize("seconds", np.arange(9.0, 13.0, 0.5))
@pytest.mark.parametrize(
    "law",
    [
        pytest.param(Law(workers=2, batch=64, service_s=1.15), id="large lumps"),
        pytest.param(Law(workers=1, batch=32, service_s=1.7), id="one worker"),
        pytest.param(Law(workers=4, batch=8, service_s=0.3, each_s=0.01), id="several workers"),
        pytest.param(Law(workers=3, batch=1, service_s=0.05), id="no batches"),
        pytest.param(Law(workers=1, batch=1, service_s=0.001), id="fast"),
    ],
)
async def test_estimate_is_exact_without_noise_however_long_the_window(
    law: Law, seconds: float
) -> None:
    found = estimate_of(await closed_loop(law, seconds))
    assert found is not None
    assert found.rps == pytest.approx(law.capacity_rps, rel=0.005)
    assert found.low_rps <= law.capacity_rps <= found.high_rps


async def test_estimate_does_not_depend_on_the_order_of_unsynchronized_workers() -> None:
    """Two batches end 0.1 s apart, then nothing for 0.9 s."""
    good = np.zeros(600, np.int64)
    for second in range(12):
        good[int(second / BIN_S)] = good[int((second + 0.1) / BIN_S)] = 32
    window = await SimulatedServers(0.01).measure(Load(Closed(8), 12, 10, 64))
    for span_s in np.arange(8.0, 12.0, 0.25):
        found = estimate_of(replace(window, good=good, span_s=span_s))
        assert found is not None and found.rps == pytest.approx(64, rel=0.001)


@pytest.mark.parametrize("cycle", [1, 7, 16, 48])
async def test_estimate_of_a_wrong_number_of_requests_in_a_round_is_close(cycle: int) -> None:
    law = Law(workers=2, batch=16, service_s=0.4)
    window = await closed_loop(law, 15)
    found = estimate_of(replace(window, load=replace(window.load, cycle_requests=cycle)))
    assert found is not None and found.rps == pytest.approx(law.capacity_rps, rel=0.05)


async def test_estimate_interval_holds_the_speed_of_the_window() -> None:
    law = Law(workers=2, batch=8, service_s=0.1)
    held = 0
    for seed in range(40):
        wander = Wander(0.08, 1.0, seed)
        found = estimate_of(await closed_loop(law, 12, wander))
        assert found is not None
        held += found.low_rps <= law.capacity_rps <= found.high_rps
    assert held >= 32


async def test_estimate_of_too_few_rounds_is_none() -> None:
    assert estimate_of(await closed_loop(Law(workers=1, batch=8, service_s=5), 9)) is None


def test_pooled_weighs_by_seconds() -> None:
    found = pooled([Estimate(100, 99, 101, 30), Estimate(80, 79, 81, 10)])
    assert (found.rps, found.seconds) == (95, 40)
    assert found.low_rps < 85 and found.high_rps > 105, "they differ by more than they vary"


def test_pooled_keeps_the_standard_error() -> None:
    found = pooled([Estimate(100, 90, 110, 30, 0.03), Estimate(100, 90, 110, 30, 0.04)])
    assert found.standard_error == pytest.approx(0.025)
    assert pooled([Estimate(100, 90, 110, 30, 0.03)]).standard_error == 0.03
