"""Tests of the verdict on a window."""

import pytest

from loadgen.measurement import Load
from loadgen.rate.goal import Goal
from loadgen.rate.verdict import Verdict, judge, success_bound
from loadgen.schedule import Constant
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


def test_success_bound_is_that_of_clopper_and_pearson() -> None:
    assert success_bound(459, confidence=0.99) == pytest.approx(0.99, abs=1e-4)
    assert success_bound(4603, confidence=0.99) == pytest.approx(0.999, abs=1e-4)
    # 16,500 requests of which 5 failed: tables give 0.06 % for the upper bound of failures.
    assert success_bound(16_495, 5) == pytest.approx(0.99936, abs=2e-5)
    assert success_bound(0) == 0
