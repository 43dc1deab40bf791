"""Exit statuses and messages of commands."""

import contextlib
from pathlib import Path

import pytest

from search.cli.main import run_command
from search.spec.loading import STARTER_PATH
from tests.loadgen.payloads.broken import broken_payload
from tests.stub import stub


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["tune", "no.yaml"], "no.yaml cannot be read"),
        (["measure"], "pass either SPEC or --url"),
        (["measure", "--url", "http://127.0.0.1:1"], "--url requires --requests FILE"),
        (["report", "."], "is not a run folder"),
        (["export", "."], "is not a run folder"),
        (["init", "."], "already exists; choose another name"),
        (["tune"], "Missing argument"),
        (["doctor", "--archive", "a.mar"], "--archive requires --deployment FILES"),
        (["doctor", "--deployment", ".", "--java", "java"], "--java is for the check of a host"),
        (["frobnicate"], "No such command"),
    ],
)
def test_run_command_ends_a_users_mistake_with_status_2_and_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(arguments) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert "Traceback" not in captured.err and not captured.out


def test_run_command_ends_a_defect_with_a_bug_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("loadgen.payloads.read_payloads", lambda path: [broken_payload()])
    monkeypatch.setattr("search.measure.endpoint.exclusive_host", contextlib.nullcontext)
    with stub() as url:
        assert run_command(["measure", "--url", url, "--requests", "requests.jsonl"]) == 70
    message = capsys.readouterr().err
    assert message.startswith(
        "servetune: a defect of the load generator ended the measurement, not the server: TypeError"
    )
    assert "please report it" in message and "Traceback" in message


def test_init_writes_the_starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["init", "mine.yaml"]) == 0
    assert (tmp_path / "mine.yaml").read_text() == STARTER_PATH.read_text()
