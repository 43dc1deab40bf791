"""The ratio to what runs today."""

from dataclasses import replace

import pytest

from search.answer.gain import confirmed_rps, gain_of, search_gain
from search.confirmation.confirmation import Confirmation
from search.confirmation.plan import Plan
from search.confirmation.race import RaceRules
from search.study.outcome import Outcome
from tests.results import result_for, visit_for


def confirmation_with(outcome: Outcome, rates: dict[int, list[float | None]]) -> Confirmation:
    """A confirmation in which each trial has these closed loops by round."""
    assert outcome.reference is not None
    plan = Plan.of(outcome.results, outcome.reference, 2)
    rounds = len(next(iter(rates.values())))
    stored = {
        str(number): {
            request.config.digest: visit_for(request, rates[request.number][number])
            for request in plan.requests
        }
        for number in range(rounds)
    }
    return Confirmation.read(stored, plan, RaceRules(rounds=rounds, far_behind=0.0))


def test_gain_of_unconfirmed_run_is_the_searchs_with_a_warning(outcome: Outcome) -> None:
    gain = gain_of(outcome)
    assert gain is not None and not gain.is_confirmed and not gain.is_certain
    assert gain.ratio.mean == 50.0
    # 250 rps against the 5.2 rps that the reference did not sustain; 260 rps against 5 rps.
    assert gain.ratio.low == pytest.approx(250 / 5.2) and gain.ratio.high == pytest.approx(52)
    assert "on average too high" in gain.warnings[0]


def test_gain_of_confirmed_run_is_the_confirmations(outcome: Outcome) -> None:
    rates: dict[int, list[float | None]] = {0: [5.0, 5.1] * 8, 3: [20.0, 20.4] * 8, 1: [9.0] * 16}
    confirmed = replace(outcome, confirmation=confirmation_with(outcome, rates))
    gain = gain_of(confirmed)
    assert gain is not None and gain.is_certain
    assert gain.ratio.low < 4 < gain.ratio.high
    assert gain.ratio == confirmed.confirmation.ratio  # type: ignore[union-attr]


def test_gain_of_confirmed_run_warns_of_failed_visits(confirmed: Outcome) -> None:
    gain = gain_of(confirmed)
    assert gain is not None and gain.is_confirmed
    assert "the reference failed in 1 of 2 visits" in gain.warnings[0]


def test_gain_of_run_that_recommends_the_reference_is_one(outcome: Outcome) -> None:
    rates: dict[int, list[float | None]] = {0: [5.0, 5.1], 3: [2.0, 2.1], 1: [1.0, 1.1]}
    gain = gain_of(replace(outcome, confirmation=confirmation_with(outcome, rates)))
    assert gain is not None and (gain.ratio.low, gain.ratio.mean, gain.ratio.high) == (1, 1, 1)


def test_gain_of_run_whose_reference_failed_in_every_visit(outcome: Outcome) -> None:
    rates: dict[int, list[float | None]] = {0: [None, None], 3: [20.0, 21.0], 1: [9.0, 9.1]}
    gain = gain_of(replace(outcome, confirmation=confirmation_with(outcome, rates)))
    assert gain is not None and not gain.is_confirmed and gain.ratio.mean == 50.0
    too_few = "the confirmation has too few successful visits to compare the two"
    assert gain.warnings[0] == too_few
    one_round: dict[int, list[float | None]] = {0: [5.0], 3: [20.0], 1: [9.0]}
    gain = gain_of(replace(outcome, confirmation=confirmation_with(outcome, one_round)))
    assert gain is not None and not gain.is_confirmed and gain.warnings[0] == too_few


def test_gain_of_run_without_a_rate_is_unknown(outcome: Outcome) -> None:
    assert gain_of(replace(outcome, best=None)) is None
    assert gain_of(replace(outcome, reference=outcome.results[4])) is None
    assert search_gain(outcome.best, None) is None


def test_confirmed_rps_has_the_share_of_the_search_without_verification(confirmed: Outcome) -> None:
    assert confirmed.confirmation is not None
    assert confirmed_rps(confirmed.confirmation, 0) == pytest.approx(5.5)
    assert confirmed_rps(confirmed.confirmation, 1) == pytest.approx(240 * 0.97, rel=0.01)


def test_gain_names_what_makes_a_confirmation_inconclusive(outcome: Outcome) -> None:
    rates: dict[int, list[float | None]] = {0: [5.0, 5.1], 3: [20.0, 20.4], 1: [9.0, 9.1]}
    unverified = confirmation_with(outcome, rates)
    gain = gain_of(replace(outcome, confirmation=unverified))
    assert gain is not None and gain.is_confirmed
    assert gain.warnings[-1] == "the winner's sustained rate was not verified at the end"
    index = unverified.winner
    failed = result_for(unverified.plan.requests[index], None, cause="no rate: overload")
    gain = gain_of(replace(outcome, confirmation=replace(unverified, verified={index: failed})))
    assert gain is not None and not gain.is_confirmed
    assert gain.warnings[-1] == "the winner's verification at the end found no sustained rate"
