"""The report of a search: headline, tables, report.md and report.html."""

import io
import re
from dataclasses import replace

from rich.console import Console

from search.report.plotly_library import plotly_text
from search.report.sections import ending
from search.report.summary import render, write_report
from search.spec.sections import ConfirmSection
from search.study.outcome import Outcome
from search.study.reading import read_outcome
from search.study.run_folder import Run
from search.trial.result import TimingRecord


def rendered(outcome: Outcome, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(render(outcome))
    return out.getvalue()


def written(outcome: Outcome) -> str:
    write_report(outcome)
    return (outcome.run.folder / "report.md").read_text()


def test_ending_reports_missing_confirmation(outcome: Outcome, confirmed: Outcome) -> None:
    assert ending(confirmed) == "The run ended because all 5 trials were run."
    assert ending(outcome) == (
        "The run ended because all 5 trials were run. No round of the confirmation was completed."
    )
    off = outcome.spec.model_copy(update={"confirm": ConfirmSection(rounds=0)})
    assert ending(replace(outcome, spec=off)) == "The run ended because all 5 trials were run."
    assert ending(replace(confirmed, reason=None)) == "The run has not ended."


def test_render_fits_80_columns(outcome: Outcome) -> None:
    text = rendered(outcome)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "…" not in text
    assert "seconds: start/warm-up/verification/bracketing/latency/stop" in text
    assert "origin" in text
    assert "Trial 4 failed: worker died: worker 7 ended" in text
    assert "The run ended because all 5 trials were run." in text
    assert "8/15/20/60/–/6" in text and "8/15/–/–/–/–" in text
    assert "Pruned and failed trials took 12 % of 375 s." in text
    assert "Trial 0: with a batch size of 1, each worker handles" in text
    assert "Trial 3: with a" in text and "Trial 1: with a" not in text


def test_render_shows_whole_duration_of_record_without_phases(outcome: Outcome) -> None:
    results = [replace(r, timing=TimingRecord(77.0)) for r in outcome.results]
    text = rendered(replace(outcome, results=results))
    assert "77" in text and "8/15" not in text


def test_render_shows_warnings_of_best(outcome: Outcome) -> None:
    warned = [replace(r, warnings=("the host paused",)) for r in outcome.results]
    text = rendered(replace(outcome, results=warned, best=warned[3]))
    assert "Trial 3, warning: the host paused." in text


def test_write_report_writes_nothing_without_a_trial(run: Run) -> None:
    write_report(read_outcome(run))
    assert [path.name for path in run.folder.iterdir()] == ["spec.yaml"]


def test_ending_reports_missing_study(outcome: Outcome) -> None:
    (outcome.run.folder / "study.db").unlink()
    assert "The study of the run cannot be read." in ending(read_outcome(outcome.run))


def test_write_report_lists_every_trial(outcome: Outcome) -> None:
    text = written(outcome)
    rows = [line for line in text.splitlines() if line.startswith("| ") and "COMPLETE" in line]
    assert len(rows) == 3
    assert "| trial | origin | workers |" in text and "| torchserve | 0.12.0 |" in text
    page = (outcome.run.folder / "report.html").read_text()
    assert "Deploy trial 3" in page and "sustains 250 requests/s" in page and "plotly" in page
    assert len(page.encode()) < 2_000_000
    assert not re.search(r"<(script|img|link)[^>]*(src|href)=", page.replace(plotly_text(), ""))
    for number in range(4):
        assert f"- trial {number}: with a batch size of 1" in text
        assert f"trial {number}: with a batch size of 1" in page
    assert "trial 4: " not in text, "a trial without metrics has no explanation"
    assert "| 8/15/20/60/–/6 |" in text and "Pruned and failed trials took 12 %" in text


def test_write_report_lists_warnings(outcome: Outcome) -> None:
    warned = [replace(r, warnings=("the host paused",)) for r in outcome.results]
    text = written(replace(outcome, results=warned))
    assert "## Warnings\n\n- trial 0: the host paused\n- trial 1: the host paused" in text


def test_write_report_compares_confirmation_with_search(confirmed: Outcome) -> None:
    assert "Confirmed in 2 rounds: trial 3 sustains 233 rps" in rendered(confirmed)
    text = written(confirmed)
    assert "the search measured 250 rps)" in text
    rows = [line for line in text.partition("## Confirmation")[2].splitlines() if "| " in line]
    assert rows[2].startswith("| 0 (reference) | 5 | 5.5, failed |")
    assert rows[3].startswith("| 3 | 250 | 235, 245 | 240 |")
    assert "The reference, trial 0, failed in 1 of 2 visits" in text


def test_report_answers_in_the_order_that_people_ask(confirmed: Outcome) -> None:
    text = written(confirmed)
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings[:7] == [
        "## What to change",
        "## What it gains and costs",
        "## How sure this is",
        "## How many replicas",
        "## Rate against latency",
        "## What limits the rate",
        "## Latency against offered load",
    ]
    assert "**Deploy trial 3 instead of TorchServe's default" in text.partition("## ")[0]
    replicas = next(line for line in text.splitlines() if line.startswith("| 1,000 |"))
    assert int(replicas.split("|")[2].split()[0]) >= 1000 / 233


def test_render_begins_with_the_verdict(confirmed: Outcome) -> None:
    first, *_ = rendered(confirmed).splitlines()
    assert first.startswith("Deploy trial 3 instead of TorchServe's default (trial 0)")


def test_html_report_cannot_be_ended_by_a_setting(outcome: Outcome) -> None:
    config = replace(outcome.results[3].config, jvm={"-X": "</script><b>x"})
    results = [*outcome.results[:3], replace(outcome.results[3], config=config)]
    write_report(replace(outcome, results=results, best=results[3]))
    page = (outcome.run.folder / "report.html").read_text()
    assert "</script><b>" not in page
