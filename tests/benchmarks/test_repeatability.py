"""How the benchmark of repeatability plans its rounds and judges them."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import repeatability
from benchmarks.repeatability import (
    Rate,
    default_figure,
    ratio_figure,
    run_rounds,
    single_figure,
)
from serving.configuration.config import ServerConfig


class Clock:
    """A clock that each measured configuration moves by `step_s`."""

    def __init__(self, step_s: float):
        self.now_s, self.step_s = 0.0, step_s
        self.orders: list[list[int]] = []

    def measure(self, order: Sequence[int]) -> dict[int, Rate]:
        self.orders.append(list(order))
        self.now_s += self.step_s * len(order)
        return {index: Rate(100.0 + index, 104.0 + index) for index in order}


def test_run_rounds_alternates_the_order() -> None:
    clock = Clock(1)
    done = run_rounds(clock.measure, 2, 3, 100, lambda: clock.now_s)
    assert clock.orders == [[0, 1], [1, 0], [0, 1]]
    assert [[rate.sustained_rps for rate in row] for row in done] == [[100, 101]] * 3


@pytest.mark.parametrize(
    ("ends_s", "rounds"),
    [
        pytest.param(0, 1, id="the first round begins in any case"),
        pytest.param(59, 2, id="a third round of 20 s would end at 60 s"),
        pytest.param(60, 3, id="three rounds fit"),
        pytest.param(1e6, 5, id="no more than were wanted"),
    ],
)
def test_run_rounds_begins_no_round_that_would_end_too_late(ends_s: float, rounds: int) -> None:
    clock = Clock(10)
    assert len(run_rounds(clock.measure, 2, 5, ends_s, lambda: clock.now_s)) == rounds


def test_figures_judge_the_spread_against_their_targets() -> None:
    pairs = [[Rate(100, 1), Rate(100 * ratio, 1)] for ratio in (1.0, 1.1, 1.0, 1.1)]
    found = ratio_figure(pairs, 4)
    assert found.value == pytest.approx(0.055, abs=0.001) and found.verdict == "met"
    single = single_figure([[Rate(rate, 1)] for rate in (100, 110, 100, 110)], 4)
    assert single.value == pytest.approx(0.055, abs=0.001) and single.verdict == "missed"
    default = default_figure([[Rate(rate, 1)] for rate in (5.0, 4.1, 6.1)], 3)
    assert default.value == pytest.approx(0.22) and default.verdict == "missed"


def test_figures_name_the_rounds_that_are_missing() -> None:
    found = default_figure([[Rate(5.0, 6)], [Rate(5.1, 6)], [Rate(None, 0)]], 3)
    assert found.rounds == 2 and found.verdict == "met in 2 rounds"
    assert default_figure([[Rate(5.0, 6)]], 3).verdict == "not known"


def test_benchmark_measures_each_part_and_prints_its_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    batches: list[list[int | None]] = []

    async def measured(spec: Any, configs: Any, rounds: int, progress: Any) -> Any:
        batches.append([config.batch_size for config in configs])
        rates = [100.0 + (config.batch_size or 1) for config in configs]
        results = [
            (SimpleNamespace(sustained_rps=r, capacity_rps=r, cause="verified"),) for r in rates
        ]
        return SimpleNamespace(results=results)

    default = SimpleNamespace(default_config=ServerConfig())
    spec = SimpleNamespace(study_space=lambda: default)
    monkeypatch.setattr(repeatability, "load_spec", lambda path: spec)
    monkeypatch.setattr(repeatability, "measure_configs", measured)
    app = typer.Typer()
    app.command()(repeatability.main)
    counts = ["--pairs", "2", "--runs", "2", "--defaults", "2"]
    result = CliRunner().invoke(app, [*counts, "--json", str(tmp_path / "rates.json")])
    assert result.exit_code == 0, result.output
    assert batches == [[32, 64], [64, 32], [32], [32], [None], [None]]
    text = " ".join(result.output.split())
    assert text.count("2 of 2") == 3 and text.count("met") == 3
    [ratio, single, _] = json.loads((tmp_path / "rates.json").read_text())
    assert ratio["values"] == pytest.approx([164 / 132] * 2)
    assert single["values"] == [132.0, 132.0]
