"""What users wrote is printed as it is, on every console and by every command."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.table import Table

from search.cli.console import create_console
from search.cli.main import run_command
from search.export.verify import Check
from search.study.outcome import Outcome
from search.study.run_folder import Run

CLI = Path(__file__).parents[3] / "search" / "cli"
TEXTS = [
    "http://[fe80::1]:8080",
    "/srv/models[/old]",
    "[red]model[/red]",
    "model[bold",
    "a [link=x]b",
    "worker:cross_mark:1",
    "\\[x]\\",
]


@pytest.fixture(params=TEXTS)
def text(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_create_console_prints_text_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    create_console(soft_wrap=True).print(text, style="dim")
    create_console(stderr=True, soft_wrap=True).print(text)
    captured = capsys.readouterr()
    assert captured.out == captured.err == f"{text}\n"


def test_create_console_prints_tables_as_they_are(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Table(text, title=text)
    table.add_row(text)
    create_console().print(table)
    assert capsys.readouterr().out.count(text) == 3


def test_commands_print_only_on_the_console_without_markup() -> None:
    for path in CLI.glob("*.py"):
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        names = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
        assert path.name == "console.py" or "Console" not in names, path


def test_report_prints_names_and_causes_as_they_are(
    outcome: Outcome, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = text.replace("/", "|")
    run = Run(outcome.run.folder.rename(outcome.run.folder.with_name(name)))
    (run.folder / "study.db").unlink()
    run.rebuild([replace(result, cause=text) for result in outcome.results])
    assert run_command(["report", str(run.folder)]) == 0
    out = capsys.readouterr().out
    assert f"Trials of {name}" in out and f"Trial 4 failed: {text}" in out


def test_init_prints_path_as_it_is(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / text.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    assert run_command(["init", str(path)]) == 0
    assert f"wrote {path};" in capsys.readouterr().out


def test_run_command_prints_errors_as_they_are(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["report", text]) == 2
    assert run_command([text]) == 2
    err = capsys.readouterr().err
    assert (
        f"servetune: {Path(text)} is not a run folder" in err and f"No such command {text!r}" in err
    )


def test_doctor_prints_findings_as_they_are(
    text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = SimpleNamespace(ok=True, subject="Java", found=text, remedy="")
    monkeypatch.setattr("search.cluster.doctor.check_host", lambda *_: [finding])
    assert run_command(["doctor"]) == 0
    assert text in capsys.readouterr().out


def test_verify_prints_checks_as_they_are(
    text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(*_: object) -> list[Check]:
        return [Check(text, False, text)]

    monkeypatch.setattr("search.export.verify.verify", check)
    assert run_command(["verify", "best"]) == 1
    out = capsys.readouterr().out
    assert out.count(text) == 3 and f"FAIL: {text}\n" in out


def test_measure_prints_warnings_as_they_are(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def measure(*_: object, **__: object) -> Any:
        return SimpleNamespace(
            lower_rps=1.0,
            estimate=None,
            upper_rps=None,
            best=SimpleNamespace(measurement=window),
            reason=text,
            requests_without_failure=1,
            warnings=(text,),
        )

    window = SimpleNamespace(latency=SimpleNamespace(quantile=lambda share: 0.1))
    requests = tmp_path / "requests.jsonl"
    requests.write_text('{"body": {}}\n')
    monkeypatch.setattr("search.measure.endpoint.measure_url", measure)
    arguments = ["measure", "--url", "http://[::1]:1", "--requests", str(requests)]
    assert run_command(arguments) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"failed; {text}" in out and f"warning: {text}" in out
