"""The trials since the last improvement, after which a search ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.spec.loading import load_spec
from search.study.stop_rules import StopRules, trials_since_improvement
from search.trial.request import TrialOrigin
from serving.configuration.config import ServerConfig
from tests.results import trial_result
from tests.specifications import make_model_files, write_spec
from tests.stores import begun_store, measure


@pytest.mark.parametrize("text", ["", "# all as TorchServe does\n"], ids=["empty", "comment"])
def test_search_ends_if_a_baseline_that_equals_the_default_cannot_serve(
    tmp_path: Path, text: str
) -> None:
    make_model_files(tmp_path)
    (tmp_path / "config.properties").write_text(text)
    spec = load_spec(write_spec(tmp_path, serving={"baseline": "config.properties"}))
    store = begun_store(tmp_path, spec.build_space(2), baseline=spec.baseline())
    rules = StopRules(spec, store)
    assert rules.failed_reference(store.results) is None
    measure(store, cause="model does not load")
    failed = rules.failed_reference(store.results)
    assert failed is not None and failed.cause == "model does not load"
    assert failed.origin is TrialOrigin.BASELINE


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
