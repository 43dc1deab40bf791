"""Tests of bracketing."""

import pytest

from loadgen.rate.bracket import Bracket


@pytest.mark.parametrize("capacity", [90.0, 60.0, 12.0])
def test_bracket_finds_a_rate_within_its_width(capacity: float) -> None:
    bracket = Bracket(100.0, 0.05, 5.0, 0.1)
    offered = []
    while (rate := bracket.next_rps()) is not None:
        offered.append(rate)
        bracket.record(rate, rate <= capacity)
    assert bracket.passed_rps is not None
    assert 0.95 * capacity <= bracket.passed_rps <= capacity
    assert len(offered) <= 9


def test_bracket_ends_at_the_lowest_rate() -> None:
    bracket = Bracket(100.0, 0.05, 5.0, 0.1)
    while (rate := bracket.next_rps()) is not None:
        assert rate >= 5
        bracket.record(rate, False)
    assert bracket.passed_rps is None


def test_bracket_failure_refutes_every_higher_rate() -> None:
    bracket = Bracket(100.0, 0.05, 5.0, 0.1)
    for rate, passed in ((80, True), (90, True), (85, False)):
        bracket.record(rate, passed)
    assert (bracket.passed_rps, bracket.failed_rps) == (80, 85)
    bracket.record(80, False)
    assert (bracket.passed_rps, bracket.failed_rps) == (None, 80)
