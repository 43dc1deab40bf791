"""What the judge compares: its cases, its figures, and the ways of others."""

import asyncio

import numpy as np
import pytest

from benchmarks.cases import CASES, COMPARED, FAULT_CASES, whole_product
from benchmarks.measure import Outcome, summary
from benchmarks.others import bisection, ladder, ndr
from loadgen.histogram import Histogram
from loadgen.measurement import Load, Measurement
from loadgen.schedule import Constant

CAPACITY_RPS = 100.0


class Loses:
    """A server that loses what is above its capacity, and nothing below."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.offered: list[tuple[float, float]] = []

    async def __call__(self, rate_rps: float, duration_s: float) -> Measurement:
        self.offered.append((rate_rps, duration_s))
        await asyncio.sleep(self.seconds)
        scheduled = 1000
        succeeded = round(scheduled * min(1.0, CAPACITY_RPS / rate_rps))
        nothing = np.zeros(1, np.int64)
        histograms = Histogram(), Histogram(), Histogram()
        load = Load(Constant(rate_rps), duration_s)
        counts = (scheduled, scheduled, succeeded, {}, duration_s)
        return Measurement(load, *counts, *histograms, nothing, nothing, nothing)


async def test_a_ladder_stops_at_the_last_step_without_losses() -> None:
    offer = Loses()
    assert await ladder(offer, 125.0) == 100.0
    assert offer.offered[-1] == (112.5, 5.0)


@pytest.mark.parametrize("high", [125.0, 20.0])
async def test_bisection_ends_within_its_width(high: float) -> None:
    found = await bisection(Loses(), high)
    assert found and 0.95 * CAPACITY_RPS <= found <= CAPACITY_RPS


async def test_ndr_ends_within_half_a_percent() -> None:
    found = await ndr(Loses(), 125.0)
    assert found and 0.99 * CAPACITY_RPS <= found <= CAPACITY_RPS


async def test_ndr_says_what_it_knows_when_its_time_is_over() -> None:
    whole, cut = Loses(), Loses(seconds=0.02)
    await ndr(whole, 125.0)
    found = await ndr(cut, 125.0, limit_s=0.2)
    assert 0 < len(cut.offered) < len(whole.offered)
    assert (found or 0) <= CAPACITY_RPS


def test_the_cases_cover_what_they_should() -> None:
    for case in CASES:
        assert 20 <= case.law.capacity_rps <= 2000, case.name
        assert case.law.batch <= case.law.queue <= 10_000 or case.law.batch == 1, case.name
        assert case.law.mean_s(case.law.batch) <= 0.5, case.name
    assert {case.law.batch for case in CASES} == {1, 8, 64}
    assert {case.arrivals for case in CASES} == {"constant", "poisson"}
    names = [case.name for case in (*CASES, *FAULT_CASES, *whole_product())]
    assert len(set(names)) == len(names)
    assert set(COMPARED) <= set(names)


@pytest.mark.parametrize(
    ("lower", "held", "is_bad"),
    [
        pytest.param(97.0, None, False, id="3 % below"),
        pytest.param(104.0, None, True, id="4 % above: certified too high"),
        pytest.param(89.0, None, True, id="11 % below"),
        pytest.param(None, None, True, id="nothing found"),
        pytest.param(None, True, False, id="nothing found, as expected of a fault"),
        pytest.param(97.0, False, True, id="a fault not seen"),
    ],
)
def test_a_bad_outcome_is_known(lower: float | None, held: bool | None, is_bad: bool) -> None:
    outcome = Outcome("x", "servetune", 100.0, lower, None, 30.0, 4.0, 6, 0, held=held)
    assert outcome.is_bad == is_bad


def test_the_summary_counts_shares() -> None:
    outcomes = [
        Outcome("x", "servetune", 100.0, lower, None, seconds, 4.0, 6, 0)
        for lower, seconds in ((96.0, 30.0), (93.0, 40.0), (101.0, 90.0))
    ]
    text = summary(outcomes)
    assert "Median error 4.0 %" in text
    assert "within 5 %: 2 of 3; within 10 %: 3 of 3" in text
    assert "above the truth +1.0 %, below -7.0 %" in text
    assert "median 40, most 90" in text
