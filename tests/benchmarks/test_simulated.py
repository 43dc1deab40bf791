"""Tests of the simulated servers and searches."""

import pytest

from benchmarks.cases import CASES, Case
from benchmarks.simulated import SimulatedStub, search_all
from benchmarks.truth import sustained_rps
from loadgen.measurement import Load
from loadgen.schedule import Closed, Constant

DETERMINISTIC = [case for case in CASES if not case.law.exponential and case.arrivals == "constant"]


@pytest.mark.parametrize("case", DETERMINISTIC, ids=[case.name for case in DETERMINISTIC])
async def test_simulated_stub_sustains_its_true_rate_and_no_more(case: Case) -> None:
    true_rps = sustained_rps(case.law, case.window)
    server = SimulatedStub(case.law, seed=0)
    passed, overloaded = [
        await server.measure(Load(Constant(share * true_rps), 20.0, 10.0, case.cycle_requests))
        for share in (0.98, 1.1)
    ]
    assert not passed.errors and passed.overload.fraction < 0.02
    assert overloaded.errors or overloaded.overload.fraction > 0.05


async def test_simulated_stub_closed_loop_finds_the_capacity() -> None:
    for case in CASES:
        window = await SimulatedStub(case.law, seed=0).measure(Load(Closed(case.users), 15.0))
        assert window.goodput_rps == pytest.approx(case.law.capacity_rps, rel=0.2), case.name


def test_search_all_differs_only_by_chance() -> None:
    constant, random = CASES[0], CASES[1]
    found = search_all([constant, random], seeds=2)
    assert [result.case for result in found] == 2 * [constant.name] + 2 * [random.name]
    errors = [result.error for result in found]
    assert errors[0] == errors[1] and errors[2] != errors[3]
    assert all(-0.3 < result.error < 0.1 for result in found)
