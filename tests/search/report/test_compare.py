"""Runs side by side: what differs is said above the figures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from search.report.compare import compare
from search.study.intervals import ratio_interval
from search.study.outcome import Outcome
from search.study.run_folder import Run
from search.trial.load_result import LoadResult
from search.trial.request import TrialOrigin
from search.trial.result import TrialState
from serving.config import ServerConfig
from tests.results import trial_result


def other_host(of: Outcome, folder: Path) -> Outcome:
    """The same figures from a host with more cores."""
    folder.mkdir()
    data = yaml.safe_load((of.run.folder / "spec.yaml").read_text())
    data["recorded"]["host"]["cores"] = 64
    data["goal"]["width"] = 0.1
    (folder / "spec.yaml").write_text(yaml.safe_dump(data))
    return replace(of, run=Run(folder))


def test_what_differs_stands_above_the_figures(found: Outcome, tmp_path: Path) -> None:
    text = compare([found, other_host(found, tmp_path / "other")])
    above, _, table = text.partition("| run |")
    assert "host.cores: " in above and "→ 64" in above
    assert "goal.width: 0.05 → 0.1" in above
    rows = table.splitlines()[2:4]
    assert "| 250 |" in rows[0] and rows[0].rstrip().endswith("| 50.00 |")
    assert "| 1.00 |" in rows[1], "the ratio of the two bests"
    assert "not confirmed" in text


def test_sweeps_are_compared_point_by_point(found: Outcome) -> None:
    def swept(seconds: float) -> Outcome:
        results = [
            trial_result(
                n,
                None,
                ServerConfig(batch_size=size),
                TrialOrigin.SWEEP,
                state=TrialState.COMPLETE,
                loads=(LoadResult("9 requests at once", "burst", completion_s=seconds + 0.01 * n),),
            )
            for n, size in enumerate([8, 16, 8, 16])
        ]
        return replace(found, results=results)

    text = compare([swept(2.0), swept(4.0)])
    row = next(line for line in text.splitlines() if "batch_size=8 " in line)
    assert "completion_s" in row and "| 2.01 | 4.01 |" in row and "| 2.00 (1.9" in row


def test_what_was_not_answered_is_told_in_a_comparison(found: Outcome) -> None:
    def swept(rates: list[float], success: float) -> Outcome:
        loads = [
            LoadResult("9 at once", "burst", completion_s=r, success_rate=success) for r in rates
        ]
        return replace(
            found,
            results=[
                trial_result(
                    n,
                    None,
                    ServerConfig(),
                    TrialOrigin.SWEEP,
                    state=TrialState.COMPLETE,
                    loads=(load,),
                )
                for n, load in enumerate(loads)
            ],
        )

    text = compare([swept([2.0, 2.0, 2.0], 1.0), swept([0.0, 0.0, 4.0], 0.4)])
    row = next(line for line in text.splitlines() if "9 at once" in line)
    assert "| 2 | 0 (0.400 answered) | 0.00 |" in row


def test_a_ratio_of_what_was_not_paired_has_its_interval() -> None:
    chance = np.random.default_rng(1)
    held = 0
    for _ in range(500):
        ours, theirs = (np.exp(chance.normal(mean, 0.1, 5)) for mean in (0.5, 0.0))
        interval = ratio_interval(list(ours), list(theirs))
        assert interval is not None
        held += interval.low <= np.exp(0.5) <= interval.high
    assert held / 500 == pytest.approx(0.95, abs=0.03)
    assert ratio_interval([1.0], [2.0, 2.1]) is None
