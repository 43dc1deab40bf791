"""Configurations that the trials of a run predict."""

from __future__ import annotations

from dataclasses import replace

import pytest

from search.answer.predicted import predicted_points
from search.spec.space import Space
from search.study.outcome import Outcome
from search.study.what_if import predict_configs
from search.trial.request import TrialOrigin
from search.trial.result import TrialResult, TrialState
from tests.results import trial_result


def trials(space: Space, count: int, noise: float = 0.0) -> list[TrialResult]:
    """Return trials whose rate, p99 and memory follow the batch size; the last one was pruned."""
    results = []
    sizes = [round(1.9**n) for n in range(count)]
    for number, size in enumerate([*sizes, 20]):
        config = space.config({**space.nearest_point(), "batch_size": size, "workers": 2})
        is_pruned = number == count
        # With noise, neighbouring configurations differ by it squared.
        factor = (1 + noise) ** (-1 if number % 2 else 1)
        results.append(
            trial_result(
                number,
                None if is_pruned else 100 * size**0.4,
                config,
                TrialOrigin.SAMPLED,
                TrialState.PRUNED if is_pruned else TrialState.COMPLETE,
                capacity_rps=100 * size**0.4,
                p99_s=None if is_pruned else 0.05 * size**0.5 * factor,
                peak_memory_mb=round((800 + 4 * size) * factor),
                workers_ready=2,
            )
        )
    return results


def with_trials(outcome: Outcome, count: int, noise: float = 0.0) -> Outcome:
    assert outcome.space is not None
    results = trials(outcome.space, count, noise)
    return replace(outcome, results=results, reference=results[0], best=results[-2])


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
