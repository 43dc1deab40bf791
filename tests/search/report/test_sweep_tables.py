"""The tables of a sweep."""

from dataclasses import replace

from search.report.csv_export import trial_frame
from search.report.summary import render, write_report
from search.report.sweep_tables import sweep_tables
from search.study.outcome import Outcome
from search.trial.result import TrialState


def test_write_report_marks_best_point_of_sweep(sweep_outcome: Outcome) -> None:
    write_report(sweep_outcome)
    text = (sweep_outcome.run.folder / "report.md").read_text()
    assert "Fixed settings: workers=1." in text
    rows = [line for line in text.splitlines() if line.startswith("| 100 requests")]
    assert len(rows) == 4
    bold = [row.split(" | ")[1:4] for row in rows if "**" in row]
    assert bold == [["16", "50", "**2.1 (2 to 2.2)**"]]
    assert render(sweep_outcome)


def test_trial_frame_has_a_row_for_each_load_of_sweep(sweep_outcome: Outcome) -> None:
    table = trial_frame(sweep_outcome.results)
    assert len(table) == 12 and table["completion_s"].min() == 2.0


def test_sweep_tables_mark_no_point_if_intervals_overlap(sweep_outcome: Outcome) -> None:
    overlapping = [
        replace(
            r,
            loads=(
                replace(r.loads[0], completion_s=3.0 + 0.5 * (r.number % 3), mean_latency_s=1.0),
            ),
        )
        for r in sweep_outcome.results
    ]
    assert "**" not in sweep_tables(overlapping)[0].markdown()


def test_sweep_tables_count_failed_repeats(sweep_outcome: Outcome) -> None:
    results = [
        replace(r, state=TrialState.FAILED, loads=(), cause="worker died") if r.number == 0 else r
        for r in sweep_outcome.results
    ]
    (table,) = sweep_tables(results)
    assert any(row[-1] == "3, 1 failed" for row in table.rows)
