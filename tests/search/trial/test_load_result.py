"""The figures of one load of a sweep."""

from dataclasses import replace

import pytest

from search.spec.sweep_loads import SweepLoad
from search.trial.load_result import LoadResult
from tests.simulated import SimulatedServers


async def test_load_result_from_window_counts_from_due_time_to_last_answer() -> None:
    load = SweepLoad("interval", rate_rps=100.0, duration_s=5.0)
    measured = await SimulatedServers(0.08, 16).measure(load.load("constant", 10.0, 0, 16))
    result = LoadResult.from_window(load, replace(measured, last_answer_s=5.05), None)
    assert (result.scheduled, result.sent, result.answered) == (500, 500, 500)
    assert result.success_rate == 1 and result.requested_rps == 100
    assert result.achieved_rps == pytest.approx(500 / 5.05)
    assert result.max_minus_mean_s is not None and result.max_minus_mean_s >= 0
    without_answer = LoadResult.from_window(load, measured, None)
    assert without_answer.completion_s is None and without_answer.achieved_rps is None
