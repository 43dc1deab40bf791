"""Trials as a table."""

from dataclasses import replace

from search.report.csv_export import trial_frame
from search.study.outcome import Outcome


def test_trial_frame_has_settings_and_figures_of_each_trial(outcome: Outcome) -> None:
    table = trial_frame(outcome.results)
    assert table["number"].tolist() == [0, 1, 2, 3, 4]
    assert table["sustained_rps"].max() == 250
    assert table.loc[3, "jvm.-Xmx"] == "2g"
    assert table["phases_s.warm-up"].tolist() == [15.0] * 5
    assert table["phases_s.bracketing"].isna().tolist() == [False, False, True, False, True]


def test_trial_frame_has_warnings(outcome: Outcome) -> None:
    warned = [replace(r, warnings=("the host paused", "late")) for r in outcome.results]
    assert trial_frame(warned)["warnings"].tolist() == ["the host paused; late"] * 5
