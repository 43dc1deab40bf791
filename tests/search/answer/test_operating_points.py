"""The operating points of a run."""

from __future__ import annotations

import json

from search.answer.operating_points import Role, measured_points
from search.answer.pareto import pareto_points
from search.study.outcome import Outcome


def test_measured_points_are_the_configurations_with_a_rate(outcome: Outcome) -> None:
    points = measured_points(outcome)
    rated = {r.config.digest for r in outcome.results if r.sustained_rps}
    assert {p.config.digest for p in points} == rated
    assert all(p.is_measured and p.number in p.trials and p.rate is None for p in points)
    reference, chosen = outcome.reference, outcome.chosen
    assert reference and chosen
    roles = {p.number: p.roles for p in points}
    assert Role.REFERENCE in roles[reference.number] and Role.RECOMMENDED in roles[chosen.number]


def test_measured_points_take_rate_and_latency_from_the_confirmation(confirmed: Outcome) -> None:
    confirmation = confirmed.confirmation
    assert confirmation is not None
    winner = next(p for p in measured_points(confirmed) if Role.RECOMMENDED in p.roles)
    assert winner.rate == confirmation.sustained(confirmation.winner)
    assert winner.rate and winner.sustained_rps == winner.rate.mean
    assert winner.is_confirmed and winner.p99_s == 0.4
    assert [(p.share, p.rate_rps) for p in winner.latency] == [(1.0, 232.8)]


def test_measured_points_do_not_know_the_rate_of_what_failed_in_a_visit(confirmed: Outcome) -> None:
    reference = next(p for p in measured_points(confirmed) if Role.REFERENCE in p.roles)
    assert reference.is_confirmed and reference.rate is None


def test_pareto_points_mark_the_highest_rate_once(outcome: Outcome) -> None:
    points = pareto_points(outcome)
    fastest = [p for p in points if Role.MAX in p.roles]
    assert [p.sustained_rps for p in fastest] == [max(p.sustained_rps for p in points)]
    assert json.loads(json.dumps([p.to_dict() for p in points]))[0]["is_measured"]
