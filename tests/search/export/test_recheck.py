"""Exported files measured again, with a simulated server."""

from __future__ import annotations

import asyncio
import json
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from search.cli.main import run_command
from search.errors import RunError
from search.export.common import ExportFormat
from search.export.recheck import Recheck, recheck
from search.study.outcome import Outcome
from servetune.errors import ExitStatus
from tests.search.export.conftest import export_best
from tests.simulated import SimulatedFleet


@pytest.fixture
def folder(outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return exported files; what serves them takes 4 ms for a request."""
    serve(monkeypatch, 1 / 250)
    return export_best(outcome, ExportFormat.PROPERTIES).folder


def serve(monkeypatch: pytest.MonkeyPatch, service_s: float, fail_every: int = 0) -> None:
    server = MagicMock(url="http://simulated/", headers={}, models={}, batch_capacity=1)
    server.guard = lambda work: work
    exported_server = MagicMock()
    exported_server.return_value.__aenter__.return_value = server
    module = "search.export.loaded_server"
    monkeypatch.setattr(f"{module}.ExportedServer", exported_server)
    fleet = partial(SimulatedFleet, service_s, fail_every=fail_every)
    monkeypatch.setattr(f"{module}.Fleet", lambda *_, **__: fleet())
    monkeypatch.setattr("search.export.recheck.Fleet", lambda *_, **__: fleet())
    monkeypatch.setattr("search.export.recheck.exclusive_host", nullcontext)
    monkeypatch.setattr("search.spec.schema.StudySpec.installation", lambda self: None)


def run_recheck(folder: Path, outcome: Outcome, url: str | None = None) -> Recheck:
    def on_phase(name: str, rate_rps: float) -> None:
        pass

    return asyncio.run(recheck(folder, outcome.run, None, None, url, None, on_phase))


@pytest.mark.parametrize("url", [None, "http://127.0.0.1:1/predictions/echo"])
def test_recheck_keeps_a_history(folder: Path, outcome: Outcome, url: str | None) -> None:
    assert not run_recheck(folder, outcome, url).drift.is_drift
    found = run_recheck(folder, outcome, url)
    assert (found.expected_rps, found.measured, len(found.history_rps)) == (250.0, 1, 2)
    assert found.history_rps[-1] == pytest.approx(250, rel=0.03)


def test_recheck_repeats_until_drift_is_certain(
    folder: Path, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_recheck(folder, outcome)
    serve(monkeypatch, 1 / 215)
    found = run_recheck(folder, outcome)
    assert found.measured > 1 and found.drift.is_drift
    assert found.drift.ratio == pytest.approx(0.86, abs=0.03)


def test_recheck_command_fails_at_drift(
    folder: Path,
    outcome: Outcome,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["recheck", str(folder), "--against", str(outcome.run.folder), "--json"]
    assert run_command(command) == ExitStatus.OK
    serve(monkeypatch, 1 / 125)
    capsys.readouterr()
    assert run_command(command) == ExitStatus.FAILED
    data = json.loads(capsys.readouterr().out)
    assert data["has_drifted"] and data["ratio"] == pytest.approx(0.5, abs=0.03)


def test_recheck_command_names_why_nothing_is_answered(
    folder: Path,
    outcome: Outcome,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    serve(monkeypatch, 1 / 250, fail_every=1)
    command = ["recheck", str(folder), "--against", str(outcome.run.folder)]
    assert run_command(command) == ExitStatus.FAILED
    printed = " ".join(capsys.readouterr().out.split())
    assert "FAIL: no request succeeded: " in printed and "status 500" in printed


def test_recheck_leaves_out_damaged_lines_and_refuses_unreadable_files(
    folder: Path, outcome: Outcome
) -> None:
    history = folder / "recheck.jsonl"
    damaged = ('{"estimate_rps": NaN}', f'{{"estimate_rps": 1{"0" * 400}}}', "[" * 100_000, "[]")
    lines = "\n".join([*damaged, '{"estimate_rps": 250.0}'])
    history.write_text(lines + '\n{"estimate_rps": 2')
    assert len(run_recheck(folder, outcome).history_rps) == 2
    assert len(run_recheck(folder, outcome).history_rps) == 3, "the line after a cut one is kept"
    history.write_text('{"format_version": 2, "estimate_rps": 250.0}\n')
    with pytest.raises(RunError, match=r"recheck.jsonl has format_version 2, but .* reads 1"):
        run_recheck(folder, outcome)
    history.unlink()
    history.mkdir()
    with pytest.raises(RunError, match="cannot be read"):
        run_recheck(folder, outcome)
