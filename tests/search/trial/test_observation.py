"""Tests of windows with the metrics of server and host."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest

from loadgen.host import host_id
from loadgen.measurement import Load, Measurement, Until
from loadgen.schedule import Constant
from search.trial import observation
from search.trial.cpu_times import CpuTimes
from search.trial.observation import ObservedGenerator, observation_of
from tests.simulated import SimulatedServers


class IdleServer:
    """A server that used one CPU second in each window and reports no metrics."""

    site = Mock()

    def __init__(self) -> None:
        self._cpu_s = 0.0

    def cpu_s(self) -> float:
        self._cpu_s += 1.0
        return self._cpu_s

    async def counters(self, models: object = None) -> None:
        return None

    async def guard(self, work: Awaitable[Measurement]) -> Measurement:
        return await work


class LoadFrom(SimulatedServers):
    """A generator whose processes used four CPU seconds on a host."""

    def __init__(self, host: str):
        super().__init__(0.01)
        self._host = host

    async def measure(self, load: Load, until: Until | None = None) -> Measurement:
        return replace(await super().measure(load, until), client_cpu_s={self._host: 4.0})


@pytest.mark.parametrize(
    ("host", "other_cpu"),
    [
        pytest.param(host_id(), 0.25, id="on this host: 10 − 1 − 4 of 20 s"),
        pytest.param("another", 0.45, id="on another host: 10 − 1 of 20 s"),
    ],
)
async def test_observed_generator_subtracts_only_the_load_of_this_host(
    host: str, other_cpu: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = iter([CpuTimes(100, 0, 1000), CpuTimes(110, 0, 1020)])

    class Readings:
        @staticmethod
        def now() -> CpuTimes:
            return next(readings)

    monkeypatch.setattr(observation, "CpuTimes", Readings)
    server: Any = IdleServer()
    observed = ObservedGenerator(server, LoadFrom(host), nullcontext(), lambda event: None)
    window = await observed.measure(Load(Constant(50), 1.0))
    found = observation_of(window)
    assert found is not None and found.other_cpu == pytest.approx(other_cpu)
