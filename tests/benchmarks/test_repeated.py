"""Tests of the simulated searches; the targets of the benchmark with fewer runs."""

from statistics import mean, pstdev

import pytest

from benchmarks.repeated import FAILING, SLOW, WANDERING, Server, run, visits
from loadgen.rate.goal import Depth

BY_NAME = {server.name: server for server in (*WANDERING, *SLOW)}


@pytest.mark.parametrize("name", ["8 %, 3 s", "8 %, 15 s", "8 %, 60 s"])
def test_run_of_a_wandering_server_is_close_to_the_truth(name: str) -> None:
    found = [run(BY_NAME[name], seed) for seed in range(12)]
    verified = [r.verified or 0.0 for r in found]
    assert 0.92 <= mean(verified) <= 1.0 and pstdev(verified) <= 0.07
    assert mean(r.estimate or 0.0 for r in found) == pytest.approx(1, abs=0.03)
    assert mean(r.measured_s for r in found) <= 55


@pytest.mark.parametrize("name", ["4 s a batch", "8 s a batch, 4 %"])
def test_run_of_slow_batches_is_close_to_the_truth(name: str) -> None:
    found = [run(BY_NAME[name], seed) for seed in range(3)]
    assert all(0.88 <= (r.verified or 0.0) <= 1.03 for r in found)


@pytest.mark.parametrize("server", FAILING, ids=lambda server: server.name)
def test_run_of_a_failing_server_reports_no_rate_with_a_failure(server: Server) -> None:
    found = [run(server, seed) for seed in range(8)]
    assert all(r.failed == 0 for r in found if r.verified)
    assert sum(r.bound is not None and r.bound > 1 - 1 / 500 for r in found) <= 1


def test_run_of_a_screened_server_is_shorter() -> None:
    screened = run(BY_NAME["8 %, 15 s, screened"], 0)
    full = run(BY_NAME["8 %, 15 s"], 0)
    assert BY_NAME["8 %, 15 s, screened"].depth is Depth.SCREEN
    assert screened.verified is not None and screened.measured_s < full.measured_s


def test_visits_find_a_difference() -> None:
    assert mean(visits(1, 1.3, rounds=4)) == pytest.approx(1.3, rel=0.06)
