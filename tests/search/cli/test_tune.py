"""The commands tune and sweep."""

from pathlib import Path

import pytest

from search.cli.main import run_command
from tests.sweeps import sweep_spec


def test_tune_refuses_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep_spec(tmp_path)
    assert run_command(["tune", str(tmp_path / "study.yaml")]) == 2
    assert "describes a sweep; run servetune sweep" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_sweep_refuses_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep_spec(tmp_path, sweep=None, space={})
    assert run_command(["sweep", str(tmp_path / "study.yaml")]) == 2
    assert "has no section `sweep`; run servetune tune" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
