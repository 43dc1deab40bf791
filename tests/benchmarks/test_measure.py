"""What the judge compares: its cases, its figures, and the ways of others."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.cases import CASES, COMPARED, FAULT_CASES, Case, whole_product
from benchmarks.measure import Outcome, summary
from benchmarks.others import bisection, ladder, ndr
from benchmarks.simulated import Served, runs
from benchmarks.truth import sustained_rps
from loadgen.histogram import Histogram
from loadgen.measurement import Load, Measurement
from loadgen.schedule import Closed, Constant

CAPACITY_RPS = 100.0


class Loses:
    """A server that loses what is above its capacity, and nothing below.

    Each window takes this many seconds on a clock that only this server advances.
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


async def test_ndr_reports_its_bounds_when_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, cut = Loses(), Loses(seconds=1.0)
    await ndr(whole, 125.0)
    monkeypatch.setattr("benchmarks.others.time", SimpleNamespace(monotonic=lambda: cut.now))
    found = await ndr(cut, 125.0, limit_s=4.0)
    assert len(cut.offered) == 5 < len(whole.offered)
    assert (found or 0) <= CAPACITY_RPS


def test_cases_cover_every_kind_of_server() -> None:
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
def test_outcome_knows_a_bad_result(lower: float | None, held: bool | None, is_bad: bool) -> None:
    outcome = Outcome("x", "servetune", 100.0, lower, None, 30.0, 4.0, 6, 0, held=held)
    assert outcome.is_bad == is_bad


def test_summary_counts_shares() -> None:
    text = summary([-0.04, -0.07, 0.01], [30.0, 40.0, 90.0])
    assert "Median error 4.0 %" in text
    assert "within 5 %: 2 of 3; within 10 %: 3 of 3" in text
    assert "more than 3 % above the truth: 0; worst +1.0 and -7.0 %" in text
    assert "median 40, most 90" in text


DETERMINISTIC = [case for case in CASES if not case.law.exponential and case.arrivals == "constant"]


@pytest.mark.parametrize("case", DETERMINISTIC, ids=[case.name for case in DETERMINISTIC])
async def test_simulated_server_sustains_its_true_rate_and_no_more(case: Case) -> None:
    true_rps = sustained_rps(case.law, case.window)
    server = Served(case.law, seed=0)
    passed, overloaded = [
        await server.measure(Load(Constant(share * true_rps), 20.0, 10.0, case.cycle_requests))
        for share in (0.98, 1.1)
    ]
    assert not passed.errors and passed.overload.fraction < 0.02
    assert overloaded.errors or overloaded.overload.fraction > 0.05


async def test_simulated_closed_loop_finds_the_capacity() -> None:
    for case in CASES:
        window = await Served(case.law, seed=0).measure(Load(Closed(case.users), 15.0))
        assert window.goodput_rps == pytest.approx(case.law.capacity_rps, rel=0.2), case.name


def test_runs_differ_by_chance_alone() -> None:
    constant, random = CASES[0], CASES[1]
    every = runs([constant, random], seeds=2)
    assert [run.case for run in every] == 2 * [constant.name] + 2 * [random.name]
    assert every[0] == every[1] and every[2] != every[3]
    assert all(-0.3 < run.error < 0.1 for run in every)
