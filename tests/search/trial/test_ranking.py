"""The values of trials for the sampler, and the best trial."""

from typing import Any

import pytest

from loadgen.rate.thresholds import DEFAULT_THRESHOLDS
from search.trial.ranking import best_of, capacity_ratio, finalists, sampler_value
from search.trial.request import TrialOrigin
from search.trial.result import TrialState
from servetune.errors import FailureKind
from serving.configuration.config import ServerConfig
from tests.results import trial_result

PRUNED = TrialState.PRUNED


@pytest.mark.parametrize(
    ("figures", "value"),
    [
        pytest.param({"sustained_rps": 120.0}, 120.0, id="complete: its sustained rate"),
        pytest.param({}, 0.0, id="failed: 0"),
        pytest.param({"state": PRUNED, "capacity_rps": 50.0}, 45.0, id="pruned: capacity × ratio"),
        pytest.param(
            {"failure": FailureKind.GENERATOR_LIMITED, "capacity_rps": 50.0},
            45.0,
            id="generator limited: as pruned",
        ),
    ],
)
def test_sampler_value_is_finite(figures: dict[str, Any], value: float) -> None:
    assert sampler_value(trial_result(1, **figures), 0.9) == pytest.approx(value)


def test_capacity_ratio_is_limited_where_the_closed_loop_was_starved() -> None:
    assert capacity_ratio([0.8, 0.9, 1.0]) == 0.9
    assert capacity_ratio([]) == 1.0
    assert capacity_ratio([3.0]) == DEFAULT_THRESHOLDS.capacity_margin


def test_finalists_begin_with_the_nominated_configurations() -> None:
    configs = [ServerConfig(workers=n) for n in (1, 2, 3)]
    results = [trial_result(n, 100.0 + n, config) for n, config in enumerate(configs)]
    nominated = [configs[1].digest, "unknown"]
    assert finalists(results, 3, nominated) == [configs[1], configs[2], configs[0]]
    assert finalists(results, 1) == [configs[2]]


def test_best_of_ignores_configuration_whose_remeasurement_fails() -> None:
    unstable, stable = ServerConfig(workers=1), ServerConfig(workers=2)
    best = best_of(
        [
            trial_result(0, 100.0, stable),
            trial_result(1, 110.0, unstable),
            trial_result(2, None, unstable, TrialOrigin.INCUMBENT),
        ]
    )
    assert best is not None and best.config == stable


def test_best_of_takes_highest_median() -> None:
    stable, unstable = ServerConfig(workers=1), ServerConfig(workers=2)
    best = best_of(
        [
            trial_result(0, 100.0, stable),
            trial_result(1, 150.0, unstable),
            trial_result(2, 60.0, unstable, TrialOrigin.INCUMBENT),
            trial_result(3, 70.0, unstable, TrialOrigin.INCUMBENT),
        ]
    )
    assert best is not None and best.config == stable
    assert best_of([]) is None
