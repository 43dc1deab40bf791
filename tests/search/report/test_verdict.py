"""The verdict of a run, its costs and its certainty."""

import re
from dataclasses import replace

import pytest

from loadgen.rate.estimate import Estimate
from search.confirmation.confirmation import Confirmation
from search.confirmation.plan import Plan
from search.confirmation.race import RaceRules
from search.report.verdict import (
    certainty,
    change_table,
    changed_settings,
    compromise,
    cost_table,
    verdict,
)
from search.study.outcome import Outcome
from search.study.reading import open_store, outcome_of
from search.study.run_folder import Run
from search.trial.objective import Objective
from search.trial.request import TrialOrigin
from search.trial.result import CurvePoint, TrialResult
from tests.results import result_for, visit_for
from tests.search.answer.test_gain import confirmation_with


def with_memory(results: list[TrialResult]) -> list[TrialResult]:
    return [
        replace(r, server=replace(r.server, peak_memory_mb=1000 + 500 * r.number)) for r in results
    ]


def test_verdict_names_rate_latency_and_memory_before_and_after(outcome: Outcome) -> None:
    measured = replace(outcome, results=with_memory(outcome.results))
    assert verdict(measured) == (
        "Deploy trial 3 instead of TorchServe's default (trial 0): it sustains 250 requests/s at "
        "100 % success instead of 5, 50 times as many (not confirmed), with a p99 latency of "
        "0.5 s at its own rate instead of 0.5 s and 2,500 MiB of memory instead of 1,000 MiB."
    )


def test_verdict_of_a_confirmed_run_has_the_interval(outcome: Outcome) -> None:
    finalist = [20.0, 20.4, 20.2, 20.0] * 4
    rates: dict[int, list[float | None]] = {0: [5.0, 5.1] * 8, 3: finalist, 1: [9.0] * 16}
    text = verdict(replace(outcome, confirmation=confirmation_with(outcome, rates)))
    found = re.search(r"3\.99 times as many \(95 % interval (.*) to (.*)\)", text)
    assert found is not None and float(found[1]) < 3.99 < float(found[2])


def test_verdict_reports_that_nothing_is_faster(outcome: Outcome) -> None:
    slower: dict[int, list[float | None]] = {0: [5.0, 5.1], 3: [2.0, 2.1], 1: [1.0, 1.1]}
    kept = replace(outcome, confirmation=confirmation_with(outcome, slower))
    assert verdict(kept).startswith("Change nothing: no configuration was faster than TorchServe's")
    assert change_table(kept) == ""
    similar: dict[int, list[float | None]] = {0: [5.0, 9.0] * 4, 3: [5.3, 8.9] * 4, 1: [1.0] * 8}
    unclear = replace(outcome, confirmation=confirmation_with(outcome, similar))
    assert "statistically indistinguishable" in certainty(unclear)
    assert verdict(unclear).startswith("No configuration is faster than")


def test_verdict_reports_a_failed_reference(outcome: Outcome) -> None:
    for origin, name in (
        (TrialOrigin.DEFAULT, "TorchServe's default"),
        (TrialOrigin.BASELINE, "What runs today"),
    ):
        failed = replace(outcome.results[4], origin=origin)
        text = verdict(replace(outcome, reference=failed))
        assert text.endswith(f"{name} (trial 4) failed: worker died: worker 7 ended.")


def test_verdict_reports_run_without_rate(run: Run) -> None:
    store = open_store(run, run.spec())
    assert verdict(outcome_of(run, run.spec(), store)) == "No trial has finished yet."
    store.begin()
    trial, request = store.ask() or pytest.fail("the study proposes no trial")
    store.tell(trial, result_for(request, cause="no start"))
    without_rate = outcome_of(run, run.spec(), store)
    assert verdict(without_rate) == "No configuration sustained any rate."
    assert certainty(without_rate) == cost_table(without_rate) == ""


def test_changed_settings_shows_the_default_of_what_is_unset(outcome: Outcome) -> None:
    assert ("batch_size", "1 (default)", "64") in changed_settings(outcome)
    assert ("mkl_threads", "2 (default)", "1") in changed_settings(outcome)
    assert ("jvm.-Xmx", "default", "2g") in changed_settings(outcome)
    assert "workers" not in [name for name, _, _ in changed_settings(outcome)], "2 is the default"


def test_certainty_of_unconfirmed_run_warns(outcome: Outcome) -> None:
    text = certainty(outcome)
    assert text.startswith("Not confirmed: each configuration was measured once")
    assert "By the search alone its rate is between 48.1 and 52 times the default's" in text


def test_certainty_of_confirmed_run_names_rounds_and_intervals(confirmed: Outcome) -> None:
    text = certainty(confirmed)
    assert "measured trial 3 in 2 rounds and the default in 2, interleaved" in text
    assert (
        "Another measurement of trial 3 is expected to give 233 requests/s (95 % prediction interval: "
        in text
    )
    assert "Note: the reference failed in 1 of 2 visits" in text


def test_certainty_names_what_varies_by_itself(outcome: Outcome) -> None:
    def with_errors(*errors: float) -> Outcome:
        results = [
            replace(r, rate=replace(r.rate, estimate=Estimate(5.0, 1.0, 9.0, 9.0, error)))
            for r, error in zip(outcome.results, errors, strict=False)
        ]
        return replace(outcome, results=[*results, *outcome.results[len(errors) :]])

    assert "varies within a measurement" not in certainty(with_errors(0.05, 0.9, 0.9, 0.05))
    text = certainty(with_errors(0.57, 0.0, 0.0, 0.2))
    assert "The speed of the default varies within a measurement: the standard error of its" in text
    assert "throughput was 57 %" in text and "The speed of trial 3 varies" in text


def test_verdict_does_not_mix_the_rate_of_the_search_with_the_ratio(confirmed: Outcome) -> None:
    assert "instead of 5 in the search, and in interleaved measurements 43.6 times" in verdict(
        confirmed
    )
    text = certainty(confirmed)
    assert "This ratio compares the throughput at full load: 240 and 5.5 requests/s." in text
    assert "The default's sustained rate of 5 requests/s is that of the search." in text


def test_certainty_counts_the_visits_of_each_configuration(outcome: Outcome) -> None:
    assert outcome.reference is not None
    plan = Plan.of(outcome.results, outcome.reference, 2)
    rates = {0: [5.0, None, 5.1], 3: [20.0, 20.4, 20.2], 1: [19.0, 19.3, 19.1]}
    stored = {
        str(number): {
            request.config.digest: visit_for(request, rps)
            for request in plan.requests
            if (rps := rates[request.number][number])
        }
        for number in range(3)
    }
    confirmation = Confirmation.read(stored, plan, RaceRules(rounds=3))
    text = certainty(replace(outcome, confirmation=confirmation))
    assert "measured trial 3 in 3 rounds and the default in 2, interleaved" in text


def test_cost_table_compares_today_with_the_recommended(confirmed: Outcome) -> None:
    rows = cost_table(confirmed).splitlines()
    assert rows[0] == "|  | default (trial 0) | recommended (trial 3) |"
    assert rows[2].startswith("| sustained rate, requests/s | 5 | 233 (")
    assert rows[3] == "| p99 latency at this rate, s | 0.5 | 0.4 |"


def with_curve(outcome: Outcome, *points: CurvePoint) -> Outcome:
    best = outcome.results[3]
    best = replace(best, latency=replace(best.latency, curve=points))
    return replace(outcome, results=[*outcome.results[:3], best, *outcome.results[4:]])


def curve_point(rate_rps: float, p99_s: float) -> CurvePoint:
    return CurvePoint(rate_rps / 250, rate_rps, 0.1, 0.1, p99_s, 0)


def test_verdict_names_the_latency_at_todays_rate(outcome: Outcome) -> None:
    curve = (curve_point(6, 0.2), curve_point(125, 0.3))
    assert "0.5 s at its own rate (0.2 s at the default's rate) instead of 0.5 s" in verdict(
        with_curve(outcome, *curve)
    )
    rows = cost_table(with_curve(outcome, *curve)).splitlines()
    assert "| p99 latency at about the default's rate, s | 0.5 | 0.2 (at 6 requests/s) |" in rows


def test_verdict_names_no_latency_of_another_rate_as_todays(outcome: Outcome) -> None:
    higher = with_curve(outcome, curve_point(125, 0.3))
    assert "(0." not in verdict(higher) and "default's rate" not in cost_table(higher)


@pytest.mark.parametrize(
    ("todays_rps", "points"),
    [
        (249.0, [(125.0, 0.3), (225.0, 0.4)]),  # About the rate of the recommended one.
        (400.0, [(125.0, 0.3), (225.0, 0.4)]),
        (70.0, [(125.0, 0.3)]),
    ],
)
def test_verdict_names_no_latency_as_todays_unless_it_was_measured_there(
    outcome: Outcome, todays_rps: float, points: list[tuple[float, float]]
) -> None:
    known = with_curve(outcome, *(curve_point(*figures) for figures in points))
    default = known.results[0]
    default = replace(default, rate=replace(default.rate, sustained_rps=todays_rps))
    changed = replace(known, results=[default, *known.results[1:]], reference=default)
    assert "default's rate" not in cost_table(changed)


def test_verdict_speaks_of_today_if_there_is_a_baseline(confirmed: Outcome) -> None:
    reference = replace(confirmed.results[0], origin=TrialOrigin.BASELINE)
    with_baseline = replace(confirmed, reference=reference)
    assert "instead of what runs today (trial 0)" in verdict(with_baseline)
    assert "and today's configuration in 2, interleaved" in certainty(with_baseline)
    assert cost_table(with_baseline).startswith("|  | today (trial 0) |")
    assert change_table(with_baseline).startswith("| setting | today |")


def with_rates(outcome: Outcome, *figures: tuple[float, float]) -> Outcome:
    """Replace the rates and p99 latencies of trials 0, 1 and 3."""
    results = list(outcome.results)
    for number, (rps, p99_s) in zip((0, 1, 3), figures, strict=True):
        rate = replace(results[number].rate, sustained_rps=rps)
        latency = replace(results[number].latency, p99_s=p99_s)
        results[number] = replace(results[number], rate=rate, latency=latency)
    return replace(outcome, results=results)


def test_compromise_gives_up_little_rate_for_much_latency(outcome: Outcome) -> None:
    found = compromise(with_rates(outcome, (5.0, 0.3), (200.0, 0.6), (250.0, 2.0)))
    assert found.startswith(
        "A compromise is trial 1: 200 requests/s (80 % of trial 3's rate), with a p99 latency of 0.6 s at this rate"
    )
    assert found.endswith("--pick knee` writes it.")


@pytest.mark.parametrize(
    "figures",
    [
        ((5.0, 0.3), (100.0, 0.4), (250.0, 2.0)),  # Too slow.
        ((5.0, 0.3), (200.0, 1.5), (250.0, 2.0)),  # Not much less latency.
        ((5.0, 0.3), (200.0, 2.5), (250.0, 2.0)),  # No knee.
    ],
)
def test_compromise_needs_much_rate_and_much_less_latency(
    outcome: Outcome, figures: tuple[tuple[float, float], ...]
) -> None:
    assert compromise(with_rates(outcome, *figures)) == ""


def test_verdict_of_a_run_with_one_configuration_claims_no_comparison(outcome: Outcome) -> None:
    only = outcome.results[:1]
    single = replace(outcome, results=only, best=only[0], reference=only[0])
    assert verdict(single).startswith("Nothing but TorchServe's default (trial 0) was measured. It")


def test_verdict_says_that_the_best_candidate_missed_the_goal(outcome: Outcome) -> None:
    rates: dict[int, list[float | None]] = {0: [5.0, 5.1], 3: [20.0, 20.4], 1: [9.0, 9.1]}
    found = confirmation_with(outcome, rates)
    plan = replace(found.plan, objective=Objective(memory_mb=1000))
    large = result_for(plan.requests[found.winner], 19.0, peak_memory_mb=1500)
    missed = replace(found, plan=plan, verified={found.winner: large})
    text = verdict(replace(outcome, confirmation=missed))
    assert text.startswith("No configuration was verified to meet the goal (peak memory 1,500 MiB")
    assert "The best candidate is trial 3" in text
