"""Runs compared: differences, then rates and ratios."""

import shutil
from dataclasses import replace
from pathlib import Path

import yaml

from search.report.compare import compare
from search.study.outcome import Outcome
from search.study.run_folder import Run
from search.trial.load_result import LoadResult
from search.trial.request import TrialOrigin
from search.trial.result import TrialState
from serving.configuration.config import ServerConfig
from tests.results import trial_result


def on_larger_host(outcome: Outcome, folder: Path) -> Outcome:
    """Return the same figures from a host with more cores, and another goal."""
    folder.mkdir()
    data = yaml.safe_load((outcome.run.folder / "spec.yaml").read_text())
    data["recorded"]["host"]["cores"] = 64
    data["goal"]["width"] = 0.1
    (folder / "spec.yaml").write_text(yaml.safe_dump(data))
    return replace(outcome, run=Run(folder))


def sweep_of(outcome: Outcome, loads: list[LoadResult], batch_sizes: list[int]) -> Outcome:
    """Return an outcome with one trial for each load."""
    results = [
        trial_result(
            number,
            None,
            ServerConfig(batch_size=size),
            TrialOrigin.SWEEP,
            state=TrialState.COMPLETE,
            loads=(load,),
        )
        for number, (load, size) in enumerate(zip(loads, batch_sizes, strict=True))
    ]
    return replace(outcome, results=results)


def test_compare_lists_differences_before_rates(outcome: Outcome, tmp_path: Path) -> None:
    text = compare([outcome, on_larger_host(outcome, tmp_path / "other")])
    differences, _, table = text.partition("| run |")
    assert f"**What changed from {outcome.run.name} to other**" in differences
    assert "host.cores: " in differences and "→ 64" in differences
    assert "goal.width: 0.05 → 0.1" in differences
    rows = table.splitlines()[2:4]
    assert "| 250 |" in rows[0] and rows[0].rstrip().endswith("| 50, not confirmed |")
    assert "| 1.00 |" in rows[1], "the ratio of the two bests"
    assert "unconfirmed run" in text


def test_compare_distinguishes_run_from_its_copy(outcome: Outcome, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(outcome.run.folder, copy)
    text = compare([outcome, replace(outcome, run=Run.open(copy))])
    assert text.startswith(f"# {outcome.run.folder.name} compared with copy\n")


def test_compare_has_a_row_for_each_load_and_point_of_sweeps(outcome: Outcome) -> None:
    def swept(completion_s: float) -> Outcome:
        loads = [
            LoadResult("9 requests at once", "burst", completion_s=completion_s + 0.01 * n)
            for n in range(4)
        ]
        return sweep_of(outcome, loads, [8, 16, 8, 16])

    text = compare([swept(2.0), swept(4.0)])
    row = next(line for line in text.splitlines() if "batch_size=8 " in line)
    assert "completion_s" in row and "| 2.01 | 4.01 |" in row and "| 2.00 (1.9" in row


def test_compare_marks_points_that_did_not_answer_everything(outcome: Outcome) -> None:
    def swept(completions_s: list[float], success_rate: float) -> Outcome:
        loads = [
            LoadResult("9 at once", "burst", completion_s=seconds, success_rate=success_rate)
            for seconds in completions_s
        ]
        return sweep_of(outcome, loads, [8] * len(loads))

    text = compare([swept([2.0, 2.0, 2.0], 1.0), swept([0.0, 0.0, 4.0], 0.4)])
    row = next(line for line in text.splitlines() if "9 at once" in line)
    assert "| 2 | 0 (0.400 answered) | 0.00 |" in row
