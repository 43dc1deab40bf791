"""Tests of ending a window early."""

from loadgen.rate.goal import Goal
from loadgen.rate.search import RateSearch
from loadgen.rate.verdict import Verdict
from tests.simulated import SimulatedServers


async def test_early_stop_ends_an_overloaded_window() -> None:
    generator = SimulatedServers(0.01)
    search = RateSearch(Goal(), generator)
    assert await search._probe("bracketing", 150.0) is Verdict.FAIL
    assert search._probes[0].measurement.span_s < 5
