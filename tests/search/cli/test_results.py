"""The commands that read runs."""

import json
from pathlib import Path

import pytest

from search.cli.main import run_command
from search.study.outcome import Outcome
from search.study.run_folder import Run
from servetune.errors import ExitStatus


def content_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("arguments", [["report", "--json"], ["compare"]])
@pytest.mark.parametrize("has_study", [True, False])
def test_command_reads_renamed_run_without_writing(
    outcome: Outcome, capsys: pytest.CaptureFixture[str], arguments: list[str], has_study: bool
) -> None:
    folder = outcome.run.folder.rename(outcome.run.folder.with_name("renamed"))
    if not has_study:
        (folder / "study.db").unlink()
    before = content_of(folder)
    paths = [str(folder)] * (2 if arguments == ["compare"] else 1)
    assert run_command([*arguments, *paths]) == 0
    out, err = capsys.readouterr()
    assert not err and content_of(folder) == before
    if arguments == ["compare"]:
        assert "| renamed | 3 |" in out
    else:
        assert json.loads(out)["chosen"]["number"] == 3


def test_report_writes_files(outcome: Outcome) -> None:
    assert run_command(["report", str(outcome.run.folder)]) == 0
    assert "sustains 250 requests/s" in (outcome.run.folder / "report.md").read_text()


def test_report_keeps_files_of_earlier_report_without_a_trial(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.folder / "report.md").write_text("earlier")
    before = content_of(run.folder)
    assert run_command(["report", str(run.folder)]) == 0
    assert "No trial has finished yet." in capsys.readouterr().out
    assert content_of(run.folder) == before


@pytest.mark.parametrize("study", [None, b"", b"no database" * 100])
def test_report_keeps_files_of_earlier_report_without_the_study(
    outcome: Outcome, capsys: pytest.CaptureFixture[str], study: bytes | None
) -> None:
    folder = outcome.run.folder
    assert run_command(["report", str(folder)]) == 0
    (folder / "report.html").unlink()
    (folder / "study.db").unlink()
    if study is not None:
        (folder / "study.db").write_bytes(study)
    before = content_of(folder)
    capsys.readouterr()
    assert run_command(["report", str(folder)]) == 0
    assert "it is unknown why the run ended" in " ".join(capsys.readouterr().out.split())
    after = content_of(folder)
    assert after.pop(folder / "report.html"), "a missing file is written"
    assert after == before


def test_report_prints_although_its_files_cannot_be_written(
    outcome: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    (outcome.run.folder / "trials.csv").mkdir()
    assert run_command(["report", str(outcome.run.folder)]) == 0
    out, err = capsys.readouterr()
    assert "Deploy trial 3" in out
    assert "the files of the report were not written: " in err and "trials.csv" in err


def test_export_needs_neither_study_nor_requests(outcome: Outcome) -> None:
    (outcome.run.folder / "study.db").unlink()
    outcome.spec.model.requests.unlink()
    assert run_command(["export", str(outcome.run.folder)]) == 0
    assert (outcome.run.folder / "best" / "config.properties").is_file()
    assert not (outcome.run.folder / "study.db").exists()


def test_dashboard_creates_no_study(outcome: Outcome, capsys: pytest.CaptureFixture[str]) -> None:
    (outcome.run.folder / "study.db").unlink()
    assert run_command(["dashboard", str(outcome.run.folder)]) == ExitStatus.BAD_INPUT
    assert "has no study.db" in " ".join(capsys.readouterr().err.split())
    assert not (outcome.run.folder / "study.db").exists()
