"""What a user reads of a run: live lines, the table, the report, the files for production."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from plotly.offline import get_plotlyjs
from rich.console import Console

from search.cli.live import LiveView
from search.errors import RunError
from search.export.files import export
from search.report.summary import headline, render, write_report
from search.study.outcome import Outcome
from search.study.reading import open_store, outcome_of
from search.study.run_folder import Run
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import TimingRecord, TrialState
from serving.config import ServerConfig
from tests.results import trial_result


def printed(found: Outcome, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(render(found))
    return out.getvalue()


def test_the_headline_says_best_against_baseline(found: Outcome) -> None:
    text = headline(found)
    assert "trial 3 sustains 250 rps" in text and "-Xmx=2g" in text
    assert "The default configuration (trial 0) sustains 5 rps: 50.0 times." in text


def test_the_table_fits_eighty_columns(found: Outcome) -> None:
    text = printed(found)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "…" not in text
    assert "Trial 4 failed: worker died: worker 7 ended" in text
    assert "The run ended because all 5 trials were run." in text
    assert "8/15/20/60/6" in text and "8/15/–/–/–" in text
    assert "Of the trials' 375 s, 12% went to those pruned or failed." in text
    assert "Trial 0: without batches a worker takes one request at a time;" in text
    assert "Trial 3: without" in text and "Trial 1: without" not in text


def test_the_report_holds_every_trial(found: Outcome) -> None:
    write_report(found)
    text = (found.run.folder / "report.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "COMPLETE" in line]
    assert len(rows) == 3
    assert "| torchserve | 0.12.0 |" in text
    page = (found.run.folder / "report.html").read_text()
    assert "trial 3 sustains 250 rps" in page and "plotly" in page
    assert not re.search(r"<(script|img|link)[^>]*(src|href)=", page.replace(get_plotlyjs(), ""))
    for number in range(4):
        assert f"- trial {number}: without batches" in text
        assert f"trial {number}: without batches" in page
    assert "trial 4: " not in text, "nothing is known of it"
    assert "| 8/15/20/60/6 |" in text and "12% went to those pruned or failed" in text
    table = pd.read_csv(found.run.folder / "trials.csv")
    assert table["sustained_rps"].max() == 250
    assert table.loc[3, "jvm.-Xmx"] == "2g"
    assert table["phases_s.warm-up"].tolist() == [15.0] * 5
    assert table["phases_s.bracketing"].isna().tolist() == [False, False, True, False, True]


def test_warnings_are_reported(found: Outcome) -> None:
    warned = [replace(r, warnings=("the host paused",)) for r in found.results]
    told = replace(found, results=warned, best=warned[3])
    assert "Trial 3, warning: the host paused." in printed(told)
    write_report(told)
    text = (found.run.folder / "report.md").read_text()
    assert "## Warnings\n\n- trial 0: the host paused\n- trial 1: the host paused" in text
    table = pd.read_csv(found.run.folder / "trials.csv")
    assert table["warnings"].tolist() == ["the host paused"] * 5


def test_a_record_without_phases_is_still_told(found: Outcome) -> None:
    old = [replace(r, timing=TimingRecord(77.0)) for r in found.results]
    text = printed(replace(found, results=old))
    assert "77" in text and "8/15" not in text


def test_trials_survive_in_the_file_and_in_the_study(found: Outcome) -> None:
    assert found.run.results() == found.results
    (found.run.folder / "trials.jsonl").write_text("half a li")
    found.run.rebuild(found.results)
    assert found.run.results() == found.results


def test_what_production_takes_is_whole(found: Outcome, tmp_path: Path) -> None:
    assert found.best is not None
    folder = export(found.run, found.best, found.spec.archive()).folder
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.properties",
        "environment",
        "log4j2.xml",
        "start.sh",
        "README.md",
        "trial.json",
    }
    text = (folder / "config.properties").read_text()
    assert "disable_token_authorization=false" in text and "vmargs=-Xmx2g" in text
    assert (folder / "environment").read_text() == "MKL_NUM_THREADS=1\nOMP_NUM_THREADS=1\n"
    readme = (folder / "README.md").read_text()
    assert "Unconfirmed" in readme and "250.0 rps" in readme and "99.75%" in readme
    assert str(tmp_path) not in "".join(path.read_text() for path in folder.iterdir())
    export(found.run, found.best, found.spec.archive())


def test_a_trial_without_a_rate_is_not_exported(found: Outcome) -> None:
    with pytest.raises(RunError, match="trial 4 sustained no rate"):
        export(found.run, found.results[4], found.spec.archive())


def test_a_confirmation_stands_beside_what_the_search_said(confirmed: Outcome) -> None:
    assert "Confirmed in 2 rounds: trial 3 sustains 235 rps" in printed(confirmed)
    write_report(confirmed)
    text = (confirmed.run.folder / "report.md").read_text()
    assert "(its search said 250)" in text
    rows = [line for line in text.partition("## Confirmation")[2].splitlines() if "| " in line]
    assert rows[2].startswith("| 0 (reference) | 5 | 5, none |")
    assert rows[3].startswith("| 3 | 250 | 230, 240 | 235 |")
    assert "The reference, trial 0, sustained no rate in 1 of the rounds" in text


def test_what_was_confirmed_is_exported_as_such(confirmed: Outcome) -> None:
    assert confirmed.chosen is not None and confirmed.chosen.number == 3
    archive = confirmed.spec.archive()
    folder = export(confirmed.run, confirmed.chosen, archive, confirmed.confirmation).folder
    text = (folder / "README.md").read_text()
    assert ": confirmed\n" in text and "Confirmed in 2 rounds: trial 3 sustains 235 rps" in text
    other = export(confirmed.run, confirmed.results[1], archive, confirmed.confirmation).folder
    assert "Unconfirmed" in (other / "README.md").read_text(), "another trial than the winner"


def test_a_run_without_any_rate_says_so(run: Run) -> None:
    study = open_store(run, run.spec())
    assert headline(outcome_of(run, run.spec(), study)) == "Nothing was measured to its end yet."
    study.begin()
    trial, request = study.ask() or pytest.fail("nothing asked")
    study.tell(
        trial,
        trial_result(
            0, None, request.config, request.origin, state=TrialState.FAILED, cause="no start"
        ),
    )
    assert headline(outcome_of(run, run.spec(), study)) == "No configuration sustained any rate."


def test_lines_tell_what_happens_without_a_terminal() -> None:
    out = io.StringIO()
    with LiveView(Console(file=out, width=60), 3, 60.0, plain=True) as view:
        for n, (kind, rps) in enumerate(
            [(TrialOrigin.DEFAULT, 5.0), (TrialOrigin.RECOMMENDED, 60.0)]
        ):
            request = TrialRequest(n, kind, ServerConfig(workers=n + 1))
            view.started(request)
            view.phase(n, "bracketing", 10.0)
            told = trial_result(n, rps, request.config, kind, state=TrialState.COMPLETE, p99_s=0.5)
            view.finished(told, told)
    lines = out.getvalue().splitlines()
    assert lines[0] == "trial 0 (default): workers=1"
    assert "best 60.0 rps (trial 1), 12.0 × the default's 5.0" in lines[3]
    assert len(lines) == 4


def test_a_terminal_shows_trial_phase_rate_best_and_time_left() -> None:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True)
    with LiveView(console, 3, 600.0, plain=False, rounds=5) as view:
        view.started(TrialRequest(1, TrialOrigin.SAMPLED, ServerConfig()))
        view.phase(1, "bracketing", 42.0)
        console.print(view._render())
        view.confirming(1, TrialRequest(1, TrialOrigin.CONFIRMATION, ServerConfig()))
        console.print(view._render())
        view.stopping()
        console.print(view._render())
    text = out.getvalue()
    for part in (
        "trial 1, sampled (at most 3 trials)",
        "bracketing at 42.0 rps",
        "best",
        "at most about 10 min left",
        "trial 1, confirmation, round 2 of 5: start",
        "round 2 of 5: stopping",
    ):
        assert part in text
