"""Tests of the search for the number of users, against simulated servers and in virtual time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.law import Law
from benchmarks.simulated import SimulatedStub
from loadgen.client import Client
from loadgen.errors import GeneratorLostError
from loadgen.fleet import Fleet
from loadgen.measurement import BIN_S, Load, Measurement, Until
from loadgen.payloads import Payload
from loadgen.rate.goal import Goal
from loadgen.rate.saturate import MAX_USERS, find_saturating_users, slow_goal, throughput_rps
from loadgen.rate.search import RateSearch
from loadgen.schedule import Closed
from tests.simulated import SimulatedServers
from tests.virtual_time import use_virtual_clock

GOAL = Goal()


@pytest.mark.parametrize(
    "law",
    [
        Law(workers=1, batch=1, service_s=0.05),
        Law(workers=2, batch=48, service_s=0.9),
        Law(workers=2, batch=48, service_s=0.9, delay_s=0.1),
        Law(workers=2, batch=64, service_s=0.128, delay_s=0.1),
        Law(workers=8, batch=1, service_s=0.002),
        Law(workers=1, batch=128, service_s=2.0, delay_s=0.5),
        Law(workers=4, batch=16, service_s=0.1, each_s=0.02),
    ],
    ids=str,
)
async def test_find_saturating_users_fills_every_batch(law: Law) -> None:
    found = await find_saturating_users(SimulatedStub(law, 0), GOAL)
    assert found.throughput_rps == pytest.approx(law.capacity_rps, rel=0.1)
    places = law.workers * law.batch
    assert places < found.users <= max(8 * places, 16)
    assert found.latency_s == pytest.approx(law.delay_s + law.mean_s(1), rel=0.1)
    assert not found.warnings


@pytest.mark.parametrize(
    "law",
    [
        Law(workers=2, batch=8, service_s=60.0),
        Law(workers=4, batch=4, service_s=20.0),
        Law(workers=1, batch=64, service_s=30.0, delay_s=0.5),
        Law(workers=8, batch=1, service_s=45.0),
        Law(workers=1, batch=32, service_s=20.0, each_s=0.5),
    ],
    ids=str,
)
async def test_find_saturating_users_of_a_slow_server_with_batches(law: Law) -> None:
    goal = Goal(timeout_s=12 * law.service_s)
    stub = SimulatedStub(law, 0)
    found = await find_saturating_users(stub, goal)
    assert found.throughput_rps == pytest.approx(law.capacity_rps, rel=0.1)
    places = law.workers * law.batch
    assert places < found.users <= 2 * places
    assert not found.warnings


@pytest.mark.parametrize(
    ("answers", "latency_s", "expected_rps"),
    [
        pytest.param([13, 16, 16, 16, 3], 20.0, 0.8, id="the first and the last batches not full"),
        pytest.param([13, 16, 3], 20.0, 32 / 60, id="too few rounds between them"),
        pytest.param([16], 20.0, 0.8, id="one round"),
        pytest.param([4, 4, 4, 4, 4], 20.0, 0.2, id="no batches"),
        pytest.param([13, 16, 16, 16, 3], 0.0, 0.64, id="unknown latency"),
    ],
)
async def test_throughput_of_a_single_round(
    answers: list[int], latency_s: float, expected_rps: float
) -> None:
    users = sum(answers)
    window = await SimulatedServers(0.1).measure(Load(Closed(users, users), 400.0))
    good = np.zeros(int(20 * len(answers) / BIN_S) + 1, dtype=np.int64)
    for number, count in enumerate(answers, 1):
        # Answers of a batch come up to 40 ms late.
        good[int(20 * number / BIN_S) - 2] += count - 1
        good[int(20 * number / BIN_S)] += 1
    measured = replace(window, good=good, span_s=len(good) * BIN_S)
    assert throughput_rps(measured, latency_s) == pytest.approx(expected_rps, rel=0.01)


async def test_search_after_the_ramp_finds_the_capacity_of_large_batches() -> None:
    law = Law(workers=2, batch=48, service_s=0.9)
    found = await find_saturating_users(SimulatedStub(law, 0), GOAL)
    goal = slow_goal(GOAL, found.latency_s)
    generator = SimulatedStub(law, 1)
    rate = await RateSearch(goal, generator, found.users // 2, found.users).find()
    assert rate.lower_rps is not None
    assert 0.93 * law.capacity_rps <= rate.lower_rps <= 1.03 * law.capacity_rps


async def test_find_saturating_users_ends_before_a_short_queue_refuses() -> None:
    law = Law(workers=2, batch=8, service_s=0.2, queue=20)
    found = await find_saturating_users(SimulatedStub(law, 0), GOAL)
    assert 16 < found.users <= 16 + law.queue
    assert found.throughput_rps == pytest.approx(law.capacity_rps, rel=0.1)
    (warning,) = found.warnings
    assert "at 64 users" in warning and "status 503" in warning


async def test_find_saturating_users_ignores_rare_failures() -> None:
    found = await find_saturating_users(SimulatedServers(0.05, 64, fail_every=50), GOAL)
    assert found.users >= 64 and not found.warnings


async def test_find_saturating_users_without_an_answer_reports_nothing() -> None:
    found = await find_saturating_users(SimulatedServers(0.05, fail_every=1), GOAL)
    assert (found.throughput_rps, found.latency_s, found.steps) == (0.0, 0.0, ())
    assert slow_goal(GOAL, found.latency_s) == GOAL


async def test_find_saturating_users_stays_below_the_timeout() -> None:
    generator = SimulatedServers(1.0)
    found = await find_saturating_users(generator, Goal(timeout_s=10.0))
    assert max(load.schedule.users for load in generator.calls) <= 10  # type: ignore[union-attr]
    assert found.users <= 8


async def test_find_saturating_users_begins_with_two_batches_of_the_hint() -> None:
    users: list[int] = []
    await find_saturating_users(
        SimulatedStub(Law(workers=1, batch=48, service_s=0.5), 0),
        GOAL,
        batch_size=48,
        progress=lambda count, latency_s: users.append(count),
    )
    assert users == [1, 96, 192, 384]


async def test_find_saturating_users_is_bounded() -> None:
    generator = SimulatedServers(0.5, 100_000)
    found = await find_saturating_users(generator, GOAL, max_users=100)
    assert found.users == 64
    assert found.warnings[0].endswith("the throughput still grew at 64 users, the limit")
    assert MAX_USERS >= 4096


class WeakGenerator(SimulatedServers):
    """A load generator that is CPU-bound above `limit` users, until it gets more processes."""

    def __init__(self, limit: int, spare: int):
        super().__init__(0.1, 1000)
        self._limit, self._spare, self.additions = limit, spare, 0

    async def add_capacity(self, limited: Measurement) -> str | None:
        if self.additions >= self._spare:
            return None
        self.additions += 1
        self._limit *= 4
        return "another process"

    async def measure(self, load: Load, until: Until | None = None) -> Measurement:
        measured = await super().measure(load, until)
        assert isinstance(load.schedule, Closed)
        return replace(measured, client_cpu=0.95 if load.schedule.users > self._limit else 0.3)


async def test_find_saturating_users_adds_load_generator_processes() -> None:
    generator = WeakGenerator(limit=100, spare=3)
    found = await find_saturating_users(generator, GOAL)
    assert found.users >= 1000 and generator.additions and not found.warnings


async def test_find_saturating_users_names_the_limit_of_the_generator() -> None:
    found = await find_saturating_users(WeakGenerator(limit=100, spare=0), GOAL)
    assert found.users == 128
    assert "at 128 users the load generator used 95 % of its core" in found.warnings[0]


async def test_find_saturating_users_repeats_a_step_that_lost_a_process() -> None:
    found = await find_saturating_users(SimulatedServers(0.05, 64, lose=[2]), GOAL)
    assert found.users >= 64
    with pytest.raises(GeneratorLostError):
        await find_saturating_users(SimulatedServers(0.05, 64, lose=[2, 3]), GOAL)


class InThisProcess:
    """A load generator process that is a `Client` on the event loop of the test."""

    def __init__(self) -> None:
        self._client = Client([Payload(b"{}")])

    async def call(self, method: str, *arguments: Any) -> Any:
        if method in ("set_target", "raise_priority"):
            return True  # These would change the priority of the tests.
        return await getattr(self._client, method)(*arguments)

    def end(self) -> None:
        pass


def test_find_saturating_users_of_a_slow_endpoint_takes_few_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = use_virtual_clock(monkeypatch, service_s=60.0)

    async def ramp() -> tuple[int, float]:
        fleet = Fleet(lambda index: InThisProcess())
        found = await find_saturating_users(fleet, Goal(timeout_s=300.0), max_users=32)
        return found.users, found.latency_s

    users, latency_s = clock.run(ramp())
    assert users == 32 and latency_s == pytest.approx(60.0, rel=0.05)
    # One round for each of 1, 8, 16 and 32 users.
    assert clock.now == pytest.approx(4 * 60.0, rel=0.1)


@pytest.mark.parametrize("latency_s", [0.0, 0.001, 1.0])
def test_slow_goal_keeps_the_goal_of_a_fast_server(latency_s: float) -> None:
    assert slow_goal(GOAL, latency_s) == GOAL


async def test_slow_goal_finds_the_rate_of_an_endpoint_that_takes_a_minute() -> None:
    law = Law(workers=2, batch=16, delay_s=1.0, service_s=60.0)
    goal = Goal(timeout_s=300.0, width=0.1)
    found = await find_saturating_users(SimulatedStub(law, 0), goal)
    slow = slow_goal(goal, found.latency_s)
    assert (slow.width, slow.timeout_s) == (0.1, 300.0)
    rate = await RateSearch(slow, SimulatedStub(law, 1), found.users // 2, found.users).find()
    assert rate.lower_rps == pytest.approx(law.capacity_rps, rel=0.1)
