"""The command predict."""

import json

import pytest

from search.cli.main import run_command
from search.study.outcome import Outcome
from servetune.errors import ExitStatus


def test_predict_shows_the_fastest_configurations(
    outcome: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["predict", str(outcome.run.folder), "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert len(entries) == 10
    for entry in entries:
        assert entry["low_rps"] < entry["high_rps"] and 0 <= entry["serving_probability"] <= 1


def test_predict_answers_for_given_settings(
    outcome: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["--workers", "2", "--batch-size", "16"]
    assert run_command(["predict", str(outcome.run.folder), *settings, "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["settings"]["workers"], entry["settings"]["batch_size"]) == (2, 16)
    assert run_command(["predict", str(outcome.run.folder), *settings]) == 0
    assert "workers=2" in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--set", "job_queue_size=5"], "does not vary in this run", id="fixed"),
        pytest.param(["--set", "workers"], "--set must be NAME=VALUE", id="no value"),
        pytest.param(["--set", "workers=many"], "positive integer (got 'many')", id="no number"),
    ],
)
def test_predict_refuses_what_it_cannot_answer(
    outcome: Outcome, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run_command(["predict", str(outcome.run.folder), *arguments]) != ExitStatus.OK
    assert message in capsys.readouterr().err
