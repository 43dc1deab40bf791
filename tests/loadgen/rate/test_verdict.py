"""Tests of the verdict on a window."""

import math

import pytest

from loadgen.measurement import Load
from loadgen.rate.goal import Goal
from loadgen.rate.verdict import Verdict, is_growth_by_chance, judge, success_bound
from loadgen.schedule import Constant, Poisson
from tests.simulated import SimulatedServers


@pytest.mark.parametrize(
    ("rate", "verdict"),
    [(90, Verdict.PASS), (98, Verdict.PASS), (104, Verdict.FAIL), (200, Verdict.FAIL)],
)
async def test_judge_returns_the_verdict_of_a_full_window(rate: float, verdict: Verdict) -> None:
    measured = await SimulatedServers(0.01).measure(Load(Constant(rate), 10))
    assert judge(measured, Goal())[0] is verdict


async def test_judge_passes_no_window_with_a_failed_request() -> None:
    measured = await SimulatedServers(0.01, fail_every=900).measure(Load(Constant(90), 10))
    assert measured.failed == 1
    assert judge(measured, Goal()) == (Verdict.FAIL, "1 of 900 failed: 1 × status 500")


@pytest.mark.parametrize(
    ("rate", "most", "by_chance"),
    [
        (90, math.inf, True),
        (110, math.inf, False),
        (3, math.inf, True),
        (103, 0.001, False),
    ],
)
async def test_is_growth_by_chance_is_true_up_to_two_deviations_of_the_arrivals(
    rate: float, most: float, by_chance: bool
) -> None:
    seconds = 30 if rate > 10 else 10
    measured = await SimulatedServers(0.01).measure(Load(Poisson(rate, 1), seconds))
    assert is_growth_by_chance(measured, most) is by_chance


async def test_is_growth_by_chance_is_false_with_a_failed_request() -> None:
    measured = await SimulatedServers(0.01, fail_every=500).measure(Load(Poisson(90, 1), 10))
    assert measured.failed and not is_growth_by_chance(measured, math.inf)


def test_success_bound_is_that_of_clopper_and_pearson() -> None:
    assert success_bound(459, confidence=0.99) == pytest.approx(0.99, abs=1e-4)
    assert success_bound(4603, confidence=0.99) == pytest.approx(0.999, abs=1e-4)
    # 16,500 requests of which 5 failed: tables give 0.06 % for the upper bound of failures.
    assert success_bound(16_495, 5) == pytest.approx(0.99936, abs=2e-5)
    assert success_bound(0) == 0
