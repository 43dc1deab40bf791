"""The commands pareto and plan, and export --pick."""

from __future__ import annotations

import json

import pytest

from search.answer.pareto import pareto_points
from search.answer.picking import pick
from search.answer.predicted import predicted_points
from search.cli.main import run_command
from search.study.outcome import Outcome
from servetune import Run


def test_pareto_lists_every_measured_configuration(
    outcome: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["pareto", str(outcome.run.folder), "--json"]) == 0
    points = json.loads(capsys.readouterr().out)
    measured = [p for p in points if p["is_measured"]]
    assert [p["trial"] for p in measured] == [p.number for p in pareto_points(outcome)]
    assert any(p["is_on_front"] for p in measured)
    front = Run.open(outcome.run.folder).pareto()
    assert {p.number for p in front} == {p["trial"] for p in points if p["is_on_front"]}
    assert run_command(["pareto", str(outcome.run.folder)]) == 0
    assert "recommended" in capsys.readouterr().out


def test_pareto_cuts_nothing_at_80_columns(
    confirmed: Outcome, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run_command(["pareto", str(confirmed.run.folder)]) == 0
    assert "…" not in capsys.readouterr().out


def test_pareto_shows_predicted_configurations_apart_from_measured_ones(
    outcome: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["pareto", str(outcome.run.folder), "--json"]) == 0
    predicted = [p for p in json.loads(capsys.readouterr().out) if not p["is_measured"]]
    shown = predicted_points(outcome)
    assert [p["name"] for p in predicted] == [p.name for p in shown.points] != []
    for p in predicted:
        assert p["low_rps"] <= p["sustained_rps"] <= p["high_rps"] and not p["roles"]
    assert run_command(["pareto", str(outcome.run.folder)]) == 0
    out = capsys.readouterr().out
    assert out.count(" predicted ") >= len(predicted) and "with 90 % intervals" in out
    assert "The p99 latency of predicted configurations is not known: 3 configurations" in out


def test_plan_prints_what_the_api_returns(
    outcome: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(outcome.run.folder)
    assert run_command(["plan", folder, "--rps", "1000", "--price-per-hour", "0.34", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    planned = Run.open(outcome.run.folder).plan(1000, price_per_hour=0.34)
    assert printed == json.loads(json.dumps(planned.to_dict()))
    assert run_command(["plan", folder, "--rps", "1000"]) == 0
    out = capsys.readouterr().out
    row = next(line.split() for line in out.splitlines() if line.strip().startswith("replicas"))
    assert row[1] == str(planned.count)
    assert "…" not in out, "no value is cut"
    assert "interval is not known" in out


def test_plan_and_export_pick_the_same_configuration(
    outcome: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(outcome.run.folder)
    chosen = pick(pareto_points(outcome), "max")
    assert run_command(["export", folder, "--pick", "max"]) == 0
    assert (
        json.loads((outcome.run.folder / "best/trial.json").read_text())["trial"] == chosen.number
    )
    assert run_command(["plan", folder, "--rps", "10", "--pick", "max", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["trial"] == chosen.number


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["plan", "RUN", "--rps", "9", "--p99", "0.0001"], "does not hold a p99 of 0.0001 s"),
        (["plan", "RUN", "--rps", "9", "--pick", "fast"], "--pick must be"),
        (["export", "RUN", "--pick", "max", "--trial", "3"], "either --trial or --pick"),
        (["export", "RUN", "--pick", "p99=0.0001"], "no configuration holds a p99"),
    ],
)
def test_commands_refuse_mistakes_in_one_sentence(
    outcome: Outcome, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    given = [str(outcome.run.folder) if text == "RUN" else text for text in arguments]
    assert run_command(given) == 2
    out, err = capsys.readouterr()
    assert not out and sentence in err and len(err.splitlines()) == 1


def test_export_plans_with_the_rate_of_the_plan(confirmed: Outcome) -> None:
    from search.answer.plan import capacity_plan
    from search.export.files import export

    assert confirmed.chosen is not None
    folder = export(
        confirmed.run,
        confirmed.chosen,
        confirmed.spec.archive(),
        confirmed.confirmation,
        load_rps=1000,
    ).folder
    scaling = json.loads((folder / "trial.json").read_text())["scaling"]
    point = next(p for p in pareto_points(confirmed) if p.number == confirmed.chosen.number)
    planned = capacity_plan(point, 1000)
    assert scaling["replicas"] == planned.count
    assert scaling["rate_rps"] == planned.scaling.rate_rps
    assert scaling["latency_s"] == planned.scaling.latency_s
