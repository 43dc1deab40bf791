"""Tests of a speed that wanders."""

import numpy as np
import pytest

from benchmarks.law import BatchServer, Law
from benchmarks.wander import Wander


@pytest.mark.parametrize("time_constant_s", [0.5, 15.0])
def test_wander_ends_work_when_it_is_done(time_constant_s: float) -> None:
    wander = Wander(0.15, time_constant_s, seed=3, horizon_s=200)
    for begin_s in np.linspace(0, 150, 31):
        for work_s in (0.001, 0.5, 20.0):
            end_s = wander.end_s(begin_s, work_s)
            assert wander.work_s(begin_s, end_s) == pytest.approx(work_s)


def test_wander_goes_on_at_speed_1() -> None:
    wander = Wander(0.15, 1.0, seed=3, horizon_s=10)
    assert wander.work_s(20, 25) == pytest.approx(5)
    assert wander.end_s(20, 5) == pytest.approx(25)
    end_s = wander.end_s(9.9, 5)
    assert wander.work_s(9.9, end_s) == pytest.approx(5)


def test_wander_has_its_deviation_and_time_constant() -> None:
    wander = Wander(0.1, 2.0, seed=1, horizon_s=20_000)
    speed = np.array([wander.work_s(at, at + 0.01) / 0.01 for at in np.arange(0, 19_000, 2.0)])
    assert speed.mean() == pytest.approx(1, abs=0.005)
    assert np.log(speed).std() == pytest.approx(0.1, rel=0.05)
    assert np.corrcoef(speed[1:], speed[:-1])[0, 1] == pytest.approx(np.exp(-1), abs=0.05)


def test_batch_server_serves_at_the_speed() -> None:
    wander = Wander(0.15, 1.0, seed=5)
    server: BatchServer[int] = BatchServer(Law(service_s=2.0), speed=wander, zero_s=-30.0)
    assert server.arrive(1.0, 0)
    [(end_s, _)] = server.advance(100.0)
    assert wander.work_s(31.0, 30.0 + end_s) == pytest.approx(2.0)
