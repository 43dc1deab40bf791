"""The trials since the last improvement, after which a search ends."""

from __future__ import annotations

import pytest

from search.study.stop_rules import trials_since_improvement
from search.trial.request import TrialOrigin
from serving.config import ServerConfig
from tests.results import trial_result


@pytest.mark.parametrize(
    ("rates", "since"),
    [
        pytest.param([], 0, id="no trial"),
        pytest.param([10, 20, 30], 0, id="each trial is better"),
        pytest.param([10, 20, 20.5, 21, 19], 3, id="a difference within the width is noise"),
        pytest.param([10, 20, None, 20.5, 40], 0, id="a failure is no improvement"),
        pytest.param([10, 20, 15, None], 2, id="a failure counts as a trial"),
    ],
)
def test_trials_since_improvement_counts_trials_without_significant_gain(
    rates: list[float | None], since: int
) -> None:
    results = [
        trial_result(n, rate, ServerConfig(workers=n + 1), TrialOrigin.SAMPLED)
        for n, rate in enumerate(rates)
    ]
    assert trials_since_improvement(results, 0.05) == since
