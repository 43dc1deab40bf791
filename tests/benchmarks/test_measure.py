"""Tests of the results of the rate search benchmark."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import Mock

import pytest

from benchmarks import measure
from benchmarks.cases import FAULT_CASES
from benchmarks.measure import CaseResult, run_servetune, summary
from benchmarks.simulated import SimulatedStub
from loadgen.measurement import Load, Measurement, Until
from loadgen.schedule import Closed


@pytest.mark.parametrize(
    ("lower", "as_expected", "is_bad"),
    [
        pytest.param(97.0, None, False, id="3 % below"),
        pytest.param(104.0, None, True, id="4 % above: too high"),
        pytest.param(89.0, None, True, id="11 % below"),
        pytest.param(None, None, True, id="no rate"),
        pytest.param(None, True, False, id="no rate, as expected with a fault"),
        pytest.param(97.0, False, True, id="a fault was not noticed"),
    ],
)
def test_case_result_is_bad_if_far_off_or_unexpected(
    lower: float | None, as_expected: bool | None, is_bad: bool
) -> None:
    figures = (100.0, lower, None, 30.0, 4.0, 6, 0)
    result = CaseResult("x", "servetune", *figures, as_expected=as_expected)
    assert result.is_bad == is_bad


def test_summary_counts_shares() -> None:
    text = summary([-0.04, -0.07, 0.01], [30.0, 40.0, 90.0])
    assert "Median error 4.0 %" in text
    assert "within 5 %: 2 of 3; within 10 %: 3 of 3" in text
    assert "more than 3 % above the truth: 0; worst +1.0 and -7.0 %" in text
    assert "median 40, most 90" in text


async def test_run_servetune_arms_faults_before_the_first_offered_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = next(case for case in FAULT_CASES if case.faults.halved_at_s)
    events: list[str] = []

    class Fleet(SimulatedStub):
        async def set_target(self, url: str) -> None:
            pass

        def close(self) -> None:
            pass

        async def measure(self, load: Load, until: Until | None = None) -> Measurement:
            events.append("closed" if isinstance(load.schedule, Closed) else "offered")
            return await super().measure(load, until)

    @contextmanager
    def running_stub(*arguments: object) -> Iterator[Mock]:
        yield Mock(arm=lambda: events.append("armed"))

    monkeypatch.setattr(measure, "running_stub", running_stub)
    monkeypatch.setattr(measure, "Fleet", lambda *_, **__: Fleet(case.law, seed=1))
    result = await run_servetune(case)
    assert events[:3] == ["closed", "armed", "offered"]
    assert events.count("armed") == 1
    assert len(result.windows) == events.count("offered")
