"""The plan of a confirmation, its rounds and its winner."""

import asyncio
from pathlib import Path

import pytest
from optuna.storages import InMemoryStorage

from search.spec.space import build_space
from search.study.confirm import Confirmation, Plan, confirm
from search.study.rounds import Rounds
from search.study.store import StudyStore
from search.trial.request import TrialRequest
from search.trial.result import TrialResult
from tests.results import result_for, trial_result
from tests.stores import measure


@pytest.fixture
def store() -> StudyStore:
    store = StudyStore(build_space({}, 2), InMemoryStorage(), "confirmed")
    store.begin()
    for rps in (5.0, 100.0, 120.0, 80.0, 110.0):
        measure(store, rps)
    return store


def plan_for(store: StudyStore, count: int = 3) -> Plan:
    return Plan.of(store.results, store.results[0], count)


def test_plan_has_reference_then_best(store: StudyStore) -> None:
    plan = plan_for(store)
    assert [request.number for request in plan.requests] == [0, 2, 4, 1]
    assert [request.known_rps for request in plan.requests] == [5.0, 120.0, 110.0, 100.0]
    assert [request.comparison_rps for request in plan.requests] == [None, 80.0, 80.0, 80.0]
    assert plan.finalists == [1, 2, 3]
    assert plan.name == plan_for(store).name != plan_for(store, 2).name


def test_plan_has_reference_among_finalists_once(store: StudyStore) -> None:
    plan = Plan.of(store.results, store.results[2], 2)
    assert [request.number for request in plan.requests] == [2, 4]
    assert plan.finalists == [0, 1]


def test_plan_leaves_out_configurations_far_below_best(store: StudyStore) -> None:
    assert [request.number for request in plan_for(store, 5).requests] == [0, 2, 4, 1], (
        "80 is less than 70 % of 120"
    )


def test_confirmation_winner_may_be_reference(store: StudyStore) -> None:
    rates = ([150.0, 151.0, 149.0], [110.0, 112.0, 111.0], [108.0, 111.0, 109.0])
    results = tuple(tuple(trial_result(0, rate) for rate in row) for row in rates)
    assert Confirmation(plan_for(store, 2), Rounds(results)).winner == 0


class Host:
    """Measures at once; raises KeyboardInterrupt after a number of measurements."""

    def __init__(self, ends_after: int = 1000):
        self.measured: list[tuple[int, int, str]] = []
        self._ends_after = ends_after

    async def measure(self, round_number: int, request: TrialRequest, folder: Path) -> TrialResult:
        if len(self.measured) == self._ends_after:
            raise KeyboardInterrupt
        self.measured.append((round_number, request.number, folder.name))
        rate = (request.known_rps or 0.0) * (0.9 + 0.01 * round_number)
        return result_for(request, rate, comparison_p99_s=0.5)


def test_confirm_interleaves_rounds_and_resumes(store: StudyStore) -> None:
    plan, host = plan_for(store, 2), Host(ends_after=4)

    def run(host: Host, allowed_rounds: int = 9) -> None:
        asyncio.run(confirm(store, plan, 3, lambda number: number < allowed_rounds, host.measure))

    with pytest.raises(KeyboardInterrupt):
        run(host)
    assert [(n, trial) for n, trial, _ in host.measured] == [(0, 0), (0, 2), (0, 4), (1, 4)]
    first = Confirmation.read(store, plan)
    assert first is not None and first.rounds.count == 1, "an incomplete round does not count"
    resumed = Host()
    run(resumed, allowed_rounds=2)
    assert resumed.measured == [(1, 2, "1-2"), (1, 0, "1-0")]
    run(resumed)
    complete = Confirmation.read(store, plan)
    assert complete is not None and complete.rounds.count == 3
    assert len(resumed.measured) == 5
    assert complete.rounds.rates(1) == pytest.approx([108.0, 109.2, 110.4])
    assert plan.requests[complete.winner].number == 2
