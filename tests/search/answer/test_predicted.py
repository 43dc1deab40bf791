"""Configurations that the trials of a run predict."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest

from search.answer.predicted import predicted_points
from search.sampler.what_if import predict_configs
from search.study.outcome import Outcome
from tests.search.answer.points import with_trials


def test_predicted_points_have_the_rate_of_servetune_predict(outcome: Outcome) -> None:
    found = predicted_points(given := with_trials(outcome, 8))
    assert found.points and not any(p.is_measured for p in found.points)
    assert given.space is not None
    configs = [p.config for p in found.points]
    for point, rate in zip(
        found.points, predict_configs(given.space, given.results, configs), strict=True
    ):
        assert point.sustained_rps == pytest.approx(rate.median_rps)
        assert point.rate is not None and point.rate.low == pytest.approx(rate.low_rps)
        assert point.workers == given.space.workers(point.config)


def test_predicted_points_name_a_pruned_trial_and_letter_the_untried(outcome: Outcome) -> None:
    given = with_trials(outcome, 8)
    points = predicted_points(given).points
    (pruned,) = [p for p in points if p.number is not None]
    assert pruned.number == 8 and pruned.memory_mb == 880 and pruned.memory is None, "measured"
    untried = [p.name for p in points if p.number is None]
    assert untried == [f"untried {letter}" for letter in "ABCDEFGH"[: len(untried)]]
    measured = {r.config.digest for r in given.results if r.sustained_rps}
    assert not measured & {p.config.digest for p in points}


def test_predicted_points_know_p99_only_where_trials_show_it(outcome: Outcome) -> None:
    close = predicted_points(with_trials(outcome, 8))
    (pruned,) = [p for p in close.points if p.number is not None]
    assert pruned.p99 is not None and pruned.p99.low <= 0.05 * 20**0.5 <= pruned.p99.high
    few = predicted_points(with_trials(outcome, 4))
    assert all(p.p99_s is None for p in few.points)
    assert any("p99 latency" in text and "6 are needed" in text for text in few.unknown)
    erratic = predicted_points(with_trials(outcome, 8, noise=2.0))
    (pruned,) = [p for p in erratic.points if p.number is not None]
    assert pruned.p99_s is None, "the configurations around it differ by a factor of nine"


def test_predicted_points_wait_for_the_end_of_the_run(outcome: Outcome) -> None:
    found = predicted_points(replace(with_trials(outcome, 8), reason=None))
    assert not found.points and "when the run has ended" in found.unknown[0]


def test_predicted_points_list_no_configuration_twice(outcome: Outcome) -> None:
    """49, 50 and 51 ms are the same to an operator."""
    given = with_trials(outcome, 8)
    space = given.space
    assert space is not None
    points = predicted_points(given).points
    untried = [space.values(p.config) for p in points if p.number is None]
    tried = [space.values(r.config) for r in given.results]
    assert untried
    for values, other in combinations([*untried, *filter(None, tried)], 2):
        if values in untried:
            assert any(not 0.91 < values[n] / other[n] < 1.1 for n in values), (values, other)
