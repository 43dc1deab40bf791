"""The result of a confirmation in a few sentences and a table."""

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from search.confirmation.confirmation import Confirmation
from search.confirmation.noise import Variance
from search.confirmation.plan import VERIFICATION, Plan
from search.confirmation.race import RaceRules
from search.confirmation.steps import next_verification
from search.report.confirmation import (
    confirmation_section,
    confirmation_text,
    missing_curves,
)
from search.trial.objective import Objective
from search.trial.ranking import RATE
from search.trial.result import TrialResult
from serving.configuration.config import ServerConfig
from tests.results import result_for, trial_result, visit_for

SEARCHED = {0: 5.0, 1: 100.0, 2: 120.0, 3: 80.0, 4: 110.0}
STEADY = {
    0: [5.0, 5.0, 5.1, 5.0, 5.0, 5.0],
    2: [120.0, 121.0, 119.0, 120.0, 122.0, 118.0],
    4: [119.0, 120.0, 120.0, 121.0, 118.0, 119.0],
}


def confirmation_of(
    rates: dict[int, Sequence[float | None]],
    verified: dict[int, tuple[float | None, float | None]] | None = None,
    rounds: int | None = None,
    prior: Variance | None = None,
    objective: Objective = RATE,
    memory_mb: dict[int, int] | None = None,
) -> Confirmation:
    """Return a confirmation of trials 0 (the reference), 2 and 4.

    Args:
        rates: closed-loop rates by trial; None for a failure.
        verified: sustained rate and p99 in seconds, by trial.
        rounds: the maximum number; all that there are rates for if None.
        memory_mb: peak memory in the verifications, by trial.
    """
    searched = [trial_result(n, rps, ServerConfig(workers=n + 1)) for n, rps in SEARCHED.items()]
    plan = Plan.of(searched, searched[0], 2, objective=objective)
    rounds = rounds or max(len(column) for column in rates.values())
    stored: dict[str, dict[str, TrialResult]] = {}
    for request in plan.requests:
        for number, rate in enumerate(rates[request.number]):
            visit = visit_for(request, rate)
            stored.setdefault(str(number), {})[request.config.digest] = visit
        if verified and request.number in verified:
            sustained_rps, p99_s = verified[request.number]
            stored.setdefault(VERIFICATION, {})[request.config.digest] = result_for(
                request,
                sustained_rps,
                capacity_rps=120.0,
                comparison_p99_s=p99_s,
                peak_memory_mb=(memory_mb or {}).get(request.number),
            )
    return Confirmation.read(stored, plan, RaceRules(rounds), lambda visit: prior)


def test_confirmation_text_reports_verified_rate_after_one_round() -> None:
    found = confirmation_of({0: [5.0], 2: [120.0], 4: [119.0]}, {2: (114.0, 0.9)})
    text = confirmation_text(found)
    assert "visited in one round, and sustained 114 rps; the search measured 120 rps" in text
    assert "Trial 4 cannot be compared with trial 2: too few visits show how rates vary" in text
    assert found.why_inconclusive.startswith("the winner has too few successful visits")


def test_confirmation_text_of_one_round_uses_the_noise_of_earlier_confirmations() -> None:
    prior = Variance(0.0004, 10)
    found = confirmation_of({0: [5.0], 2: [120.0], 4: [119.0]}, {2: (114.0, 0.9)}, prior=prior)
    assert found.is_conclusive and found.why_inconclusive == ""
    text = confirmation_text(found)
    assert text.startswith("Confirmed in one round: trial 2 sustains 114 rps (95 % prediction in")
    unverified = confirmation_of({0: [5.0], 2: [120.0], 4: [119.0]}, prior=prior)
    text = confirmation_text(unverified)
    assert text.startswith("Trial 2 answers 120 rps in a closed loop, visited in one round (95 %")
    assert ". The winner's sustained rate was not verified at the end" in text


def test_confirmation_text_reports_rate_reference_and_ties() -> None:
    found = confirmation_of(STEADY, {2: (114.0, 0.9), 4: (116.4, 0.6)})
    text = confirmation_text(found)
    assert text.startswith(
        "Confirmed in 6 rounds: trial 4 sustains 116 rps (95 % prediction interv"
    )
    assert "the search measured 110 rps" in text
    assert "Trial 4 is 23.6 times as fast as the reference, trial 0 (95 % interval: 23." in text
    assert (
        "Trial 2 is statistically indistinguishable from trial 4: 1.00 times the winner's throughput at full load ("
        in text
    )
    assert "and a p99 of 0.9 s against 0.6 s at 88 rps" in text


def test_confirmation_text_reports_finalist_that_is_slower() -> None:
    rates = {**STEADY, 4: [100.0, 101.0, 99.0, 100.0, 102.0, 98.0]}
    text = confirmation_text(confirmation_of(rates, {2: (114.0, None)}))
    assert (
        "Trial 4 is shown to be slower after 3 rounds: 0.83 times the winner's throughput at full load"
        in text
    )
    assert "indistinguishable" not in text


def test_confirmation_text_reports_reference_that_fails() -> None:
    rates = {**STEADY, 0: [None] * 6}
    text = confirmation_text(confirmation_of(rates, {2: (114.0, None), 4: (None, None)}))
    assert "The reference, trial 0, failed in 1 of 1 visits" in text
    rates = {**STEADY, 0: [5.0, 5.0, None, None, None, None]}
    text = confirmation_text(confirmation_of(rates))
    assert "The reference, trial 0, failed in 1 of 2 visits" in text


def test_confirmation_text_reports_indistinguishable_reference() -> None:
    order = {0: 0, 2: 2, 4: 4}
    rates = [100.0, 108.0, 94.0, 105.0, 97.0, 99.0]
    noisy = {n: rates[k:] + rates[:k] for n, k in order.items()}
    text = confirmation_text(confirmation_of(noisy, {2: (95.0, None)}))
    assert "times as fast as the reference, trial 0 (95 % interval: 0.9" in text
    assert "); they are statistically indistinguishable" in text


def test_confirmation_text_without_verification_reports_closed_loop() -> None:
    text = confirmation_text(confirmation_of(STEADY))
    assert text.startswith("Trial 2 answers 120 rps in a closed loop, visited in 6 rounds (95 %")
    assert "The winner's sustained rate was not verified at the end" in text
    failed = confirmation_text(confirmation_of(STEADY, {2: (None, None), 4: (None, None)}))
    assert "The winner's verification at the end found no sustained rate" in failed
    single = {number: column[:1] for number, column in STEADY.items()}
    assert confirmation_text(confirmation_of(single)).startswith(
        "Trial 2 answers 120 rps in a closed loop, visited in one round; the search measured 120 rps"
    )


def test_confirmation_section_shows_visits_and_method() -> None:
    found = confirmation_of(STEADY, {2: (114.0, 0.5), 4: (114.0, 0.6)}, prior=Variance(0.0004, 10))
    _, _, table, note = confirmation_section(found)
    rows = table.splitlines()[2:]
    assert rows[0].startswith("| 0 (reference) | 5 | 5, –, 5.1, –, –, – | 5.05 |")
    assert "| winner | 114 | 0.5 |" in rows[1]
    assert "| indistinguishable | 114 | 0.6 |" in rows[2]
    assert "vary with a standard deviation of 1." in note
    assert "and from earlier runs on this host (2.0 %)" in note
    assert "means are compared (Welch)" in note
    assert "The first 3 rounds chose among the finalists" in note
    assert confirmation_section(None) == []


def test_confirmation_text_compares_what_the_run_optimizes() -> None:
    found = confirmation_of(STEADY, {2: (114.0, 0.5), 4: (114.0, 0.6)})
    plan = replace(found.plan, objective=Objective("latency", for_rps=10.0))
    text = confirmation_text(replace(found, plan=plan))
    pattern = r"times the winner's (.*) \(95 % interval: ([0-9.]+) to ([0-9.]+)\)"
    ((name, low, high),) = re.findall(pattern, text)
    ((_, rate_low, rate_high),) = re.findall(pattern, confirmation_text(found))
    assert name == "p99 latency"
    assert float(low) == pytest.approx(1 / float(rate_high), abs=0.01)
    assert float(high) == pytest.approx(1 / float(rate_low), abs=0.01)


def test_confirmation_section_says_that_ratios_are_formed_within_rounds() -> None:
    drift = [1.0, 0.7, 1.3, 0.8, 1.2, 0.9]
    rates = {n: [(50 + 20 * n) * d for d in drift] for n in (0, 2, 4)}
    note = confirmation_section(confirmation_of(rates))[-1]
    assert "The rates of a round change together" in note


def test_confirmation_section_warns_of_a_choice_on_the_same_rounds() -> None:
    rates = {n: column[:2] for n, column in STEADY.items()}
    note = confirmation_section(confirmation_of(rates))[-1]
    assert "The same rounds chose the winner and estimate its rate" in note


def test_missing_curves_names_whose_latency_is_not_measured() -> None:
    text = missing_curves(confirmation_of(STEADY, {2: (114.0, None)}))
    assert "the latency of trial 0 (the reference) and of trial 4 at 50, 70 and 90 %" in text
    measured = {0: (4.8, None), 2: (114.0, None), 4: (116.4, None)}
    assert missing_curves(confirmation_of(STEADY, measured)) == missing_curves(None) == ""


SMALL = Objective(memory_mb=1000)


def test_confirmation_verifies_the_next_finalist_if_the_best_misses_the_goal() -> None:
    best = {2: (114.0, 0.5)}
    found = confirmation_of(STEADY, best, objective=SMALL, memory_mb={2: 1100})
    assert found.plan.requests[found.leader].number == 4
    step = next_verification(found)
    assert step is not None and [request.number for request in step.requests] == [4]
    both = {**best, 4: (110.0, 0.6)}
    found = confirmation_of(STEADY, both, objective=SMALL, memory_mb={2: 1100, 4: 900})
    assert found.plan.requests[found.winner].number == 4 and found.shortfalls(found.winner) == ()
    assert next_verification(found) is None


def test_confirmation_chooses_the_best_if_every_finalist_misses_the_goal() -> None:
    both = {2: (114.0, 0.5), 4: (110.0, 0.6)}
    found = confirmation_of(STEADY, both, objective=SMALL, memory_mb={2: 1100, 4: 1200})
    assert found.plan.requests[found.winner].number == 2
    (shortfall,) = found.shortfalls(found.winner)
    assert str(shortfall) == "peak memory 1,100 MiB, 10 % above the limit of 1,000 MiB"


def test_confirmation_verifies_the_next_finalist_if_the_best_sustains_no_rate() -> None:
    found = confirmation_of(STEADY, {2: (None, None), 4: (110.0, 0.6)})
    assert found.plan.requests[found.winner].number == 4 and found.is_conclusive
