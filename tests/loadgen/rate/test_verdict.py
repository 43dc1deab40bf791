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
    assert judge(measured, Goal(), 0.05)[0] is verdict


def test_success_bound_is_that_of_zero_failures() -> None:
    assert success_bound(459, 0.99) == pytest.approx(0.99, abs=1e-4)
    assert success_bound(4603, 0.99) == pytest.approx(0.999, abs=1e-4)
    assert success_bound(0) == 0
