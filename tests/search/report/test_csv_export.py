"""Trials as a table."""

from dataclasses import replace

from search.report.csv_export import trial_frame
from search.study.outcome import Outcome
from search.trial.mix import MixRecord


def test_trial_frame_has_settings_and_figures_of_each_trial(outcome: Outcome) -> None:
    table = trial_frame(outcome.results)
    assert table["number"].tolist() == [0, 1, 2, 3, 4]
    assert table["sustained_rps"].max() == 250
    assert table.loc[3, "jvm.-Xmx"] == "2g"
    assert table["phases_s.warm-up"].tolist() == [15.0] * 5
    assert table["phases_s.bracketing"].isna().tolist() == [False, False, True, False, True]


def test_trial_frame_has_the_latency_of_each_model_of_a_mix(outcome: Outcome) -> None:
    mixed = [
        replace(r, mix=(MixRecord("cat", 30.0, 90, 1, 0.1, 0.2, 0.4),)) for r in outcome.results
    ]
    table = trial_frame(mixed)
    row = table.loc[
        0, [f"mix.cat.{name}" for name in ("sent", "failed", "p50_s", "p95_s", "p99_s")]
    ]
    assert row.tolist() == [90, 1, 0.1, 0.2, 0.4]


def test_trial_frame_has_warnings(outcome: Outcome) -> None:
    warned = [replace(r, warnings=("the host paused", "late")) for r in outcome.results]
    assert trial_frame(warned)["warnings"].tolist() == ["the host paused; late"] * 5
