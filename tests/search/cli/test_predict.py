"""The command predict."""

import json

import pytest

from search.cli.main import run_command
from search.cli.predict import _parsed
from search.errors import CommandError
from search.spec.dimension import Dimension
from search.spec.space_building import build_space
from search.study.outcome import Outcome
from search.study.reading import open_store
from servetune.errors import ExitStatus
from tests.results import result_for


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
        pytest.param(
            ["--set", "environment.MODE=fast"], "MODE does not vary in this run", id="fixed text"
        ),
        pytest.param(["--set", "workers"], "--set must be NAME=VALUE", id="no value"),
        pytest.param(["--set", "workers=many"], "positive integer (got 'many')", id="no number"),
    ],
)
def test_predict_refuses_what_it_cannot_answer(
    outcome: Outcome, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run_command(["predict", str(outcome.run.folder), *arguments]) != ExitStatus.OK
    assert message in capsys.readouterr().err


def test_predict_shows_measured_rates_without_an_exponent(
    outcome: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(outcome.run, outcome.run.spec())
    store.begin()
    trial, request = store.ask() or pytest.fail("the study proposes no trial")
    outcome.run.append(store.tell(trial, result_for(request, 1234.0)))
    assert run_command(["predict", str(outcome.run.folder)]) == 0
    shown = capsys.readouterr().out
    assert "1,234" in shown and "e+0" not in shown


def test_parsed_accepts_choices_only() -> None:
    space = build_space({"workers": Dimension("", choices=(1, 2, 4))}, cores=4)
    assert _parsed(["workers=2"], space) == {"workers": 2}
    with pytest.raises(CommandError, match="workers must be one of 1, 2, 4"):
        _parsed(["workers=3"], space)
