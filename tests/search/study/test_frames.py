"""The frames of a run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from search.formats import MEASUREMENTS_VERSION
from search.study.outcome import Outcome
from search.study.run_folder import Run
from search.trial.background import BackgroundRecord
from search.trial.mix import MixRecord
from serving.configuration.config import ServerConfig
from tests.results import WINDOW, trial_result


def write_windows(run: Run, number: int, *windows: object) -> None:
    folder = run.trial_folder(number)
    folder.mkdir(parents=True)
    data = {"format_version": MEASUREMENTS_VERSION, "windows": windows, "probes": []}
    (folder / "measurements.json").write_text(json.dumps(data))


def test_dataframe_of_trials_is_typed(outcome: Outcome) -> None:
    table = outcome.run.dataframe()
    assert list(table.index) == [0, 1, 2, 3, 4] and table.index.name == "number"
    assert table["sustained_rps"].dropna().to_dict() == {0: 5.0, 1: 60.0, 3: 250.0}
    assert table["sustained_rps"].dtype == "float64" and table["workers_ready"].dtype == "Int64"
    assert table["state"].dtype == "category" and table["failure"].dtype == "string"
    assert table["state"].tolist() == ["COMPLETE", "COMPLETE", "PRUNED", "COMPLETE", "FAILED"]
    assert table.loc[3, "setting.batch_size"] == 64
    assert table.loc[3, "setting.jvm.-Xmx"] == "2g" and pd.isna(table.loc[0, "setting.workers"])


def test_dataframe_of_trials_has_a_column_for_each_setting_of_another_model(tmp_path: Path) -> None:
    run = Run(tmp_path)
    models = {"zoo.v2": {"workers": 3, "runtimeType": "PYTHON"}}
    run.append(trial_result(0, 100.0, ServerConfig(models=models)))
    table = run.dataframe()
    assert table.loc[0, "setting.models.zoo.v2.workers"] == 3
    assert table.loc[0, "setting.models.zoo.v2.runtimeType"] == "PYTHON"


def test_dataframe_of_trials_has_the_latency_of_each_model_with_a_load(tmp_path: Path) -> None:
    run = Run(tmp_path)
    mix = (MixRecord("cat", 30.0, 90, 1, 1.0, 2.0, 4.0), MixRecord("dog.v2", 10.0, 30))
    background = (BackgroundRecord("owl", 8.0, 40, 2, 0.1, 0.2),)
    for number, loads in enumerate(({}, {"mix": mix, "background": background})):
        result = trial_result(number, 100.0)
        run.append(replace(result, **loads))
    table = run.dataframe()
    assert table["mix.cat.p99_s"].dtype == "float64" and table["mix.cat.sent"].dtype == "Int64"
    assert table.loc[1, ["mix.cat.p50_s", "mix.cat.p95_s", "mix.cat.p99_s"]].tolist() == [1, 2, 4]
    assert table.loc[1, ["mix.cat.sent", "mix.cat.failed", "mix.dog.v2.sent"]].tolist() == [
        90,
        1,
        30,
    ]
    assert table.loc[1, ["background.owl.scheduled", "background.owl.p99_s"]].tolist() == [40, 0.2]
    assert pd.isna(table.loc[0, "mix.cat.p99_s"]) and pd.isna(table.loc[1, "mix.dog.v2.p99_s"])


def test_dataframe_of_windows_has_a_row_for_each_window(outcome: Outcome) -> None:
    write_windows(outcome.run, 1, WINDOW, {**WINDOW, "server": None, "errors": {}})
    write_windows(outcome.run, 3, WINDOW)
    table = outcome.run.dataframe("windows")
    assert table.index.tolist() == [(1, 0), (1, 1), (3, 0)]
    assert table["failed"].tolist() == [2, 0, 2] and table["failed"].dtype == "Int64"
    assert table["p99_s"].tolist() == [0.4] * 3 and table["offered_rps"].tolist() == [40.0] * 3
    assert table["queue_s"].isna().tolist() == [False, True, False]


def test_dataframe_of_predictions_has_intervals_of_repeated_measurements(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for number, rate in enumerate((100.0, 110.0, None, 90.0)):
        run.append(trial_result(number, rate))
    table = run.dataframe("predictions")
    assert table.index.tolist() == [0] and table.loc[0, "measurements"] == 3
    row = table.loc[0]
    assert row["next_low_rps"] < row["mean_low_rps"] < row["mean_rps"] == pytest.approx(99.67, 0.01)
    assert row["mean_rps"] < row["mean_high_rps"] < row["next_high_rps"]


def test_dataframe_of_one_measurement_has_no_interval(outcome: Outcome) -> None:
    table = outcome.run.dataframe("predictions")
    assert table["measurements"].tolist() == [1, 1, 1]
    assert table["mean_rps"].tolist() == [5.0, 60.0, 250.0]
    assert table["next_low_rps"].isna().all()


@pytest.mark.parametrize("kind", ["trials", "windows", "predictions"])
def test_dataframe_of_an_empty_run_has_the_same_types(
    outcome: Outcome, tmp_path: Path, kind: str
) -> None:
    write_windows(outcome.run, 1, WINDOW)
    full = outcome.run.dataframe(kind)  # type: ignore[arg-type]
    empty = Run(tmp_path / "none").dataframe(kind)  # type: ignore[arg-type]
    assert len(empty) == 0
    common = [name for name in full.columns if not name.startswith("setting.")]
    assert empty.columns.tolist() == common
    for name in common:
        assert empty[name].dtype.name == full[name].dtype.name, name


def test_dataframe_refuses_an_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="kind must be trials, windows or predictions"):
        Run(tmp_path).dataframe("all")  # type: ignore[arg-type]


@pytest.mark.processes
def test_example_draws_the_front_of_a_run(outcome: Outcome, tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    command = [sys.executable, root / "examples" / "front_of_a_run.py", outcome.run.folder]
    shown = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(root)},
    )
    lines = shown.stdout.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["3"], "no other trial is on the front"
    assert "250" in lines[2] and "front" in (tmp_path / "front.html").read_text()
