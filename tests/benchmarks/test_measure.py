"""Tests of the results of the rate search benchmark."""

import pytest

from benchmarks.measure import CaseResult, summary


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
