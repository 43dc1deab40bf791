"""Tests of the other methods of finding a rate."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.others import bisection, ladder, ndr
from loadgen.histogram import Histogram
from loadgen.measurement import Load, Measurement
from loadgen.schedule import Constant

CAPACITY_RPS = 100.0


class LossyServer:
    """A server that loses the requests above its capacity, and none below.

    Each window takes `seconds` on the clock `now`, which only this server advances.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.now = seconds, 0.0
        self.offered: list[tuple[float, float]] = []

    async def __call__(self, rate_rps: float, duration_s: float) -> Measurement:
        self.offered.append((rate_rps, duration_s))
        self.now += self.seconds
        scheduled = 1000
        succeeded = round(scheduled * min(1.0, CAPACITY_RPS / rate_rps))
        nothing = np.zeros(1, np.int64)
        histograms = Histogram(), Histogram(), Histogram()
        load = Load(Constant(rate_rps), duration_s)
        counts = (scheduled, scheduled, succeeded, {}, duration_s)
        return Measurement(load, *counts, *histograms, nothing, nothing, nothing)


async def test_ladder_stops_at_the_last_step_without_losses() -> None:
    offer = LossyServer()
    assert await ladder(offer, 125.0) == 100.0
    assert offer.offered[-1] == (112.5, 5.0)


@pytest.mark.parametrize("high", [125.0, 20.0])
async def test_bisection_ends_within_its_width(high: float) -> None:
    found = await bisection(LossyServer(), high)
    assert found and 0.95 * CAPACITY_RPS <= found <= CAPACITY_RPS


async def test_ndr_ends_within_half_a_percent() -> None:
    found = await ndr(LossyServer(), 125.0)
    assert found and 0.99 * CAPACITY_RPS <= found <= CAPACITY_RPS


async def test_ndr_reports_its_bounds_when_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, cut = LossyServer(), LossyServer(seconds=1.0)
    await ndr(whole, 125.0)
    monkeypatch.setattr("benchmarks.others.time", SimpleNamespace(monotonic=lambda: cut.now))
    found = await ndr(cut, 125.0, limit_s=4.0)
    assert len(cut.offered) == 5 < len(whole.offered)
    assert (found or 0) <= CAPACITY_RPS
