"""Rounds, their ratios and what is decided on them: no JVM, no cluster."""

import asyncio
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.storages import InMemoryStorage

from search.report.summary import confirmed
from search.spec.space import build_space
from search.study.confirm import Confirmation, Plan, confirm
from search.study.intervals import mean_interval, prediction_interval
from search.study.rounds import Rounds, order
from search.study.store import StudyStore
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import LatencyRecord, RateRecord, TrialResult, TrialState
from servetune.errors import FailureKind
from serving.config import ServerConfig
from tests.results import trial_result


def result(rps: float | None, number: int = 0, workers: int = 1, **more: Any) -> TrialResult:
    state = TrialState.COMPLETE if rps else TrialState.FAILED
    config = ServerConfig(workers=workers)
    return trial_result(
        number, rps, config, TrialOrigin.SAMPLED, state=state, duration_s=10.0, **more
    )


def rounds(*rows: tuple[list[float | None], float]) -> Rounds:
    """A configuration each: its rates by round, its p99 at the common rate."""
    return Rounds(
        tuple(
            tuple(result(rate, n, n + 1, comparison_p99_s=p99) for rate in rates)
            for n, (rates, p99) in enumerate(rows)
        )
    )


def test_intervals_hold_what_they_promise() -> None:
    chance = np.random.default_rng(0)
    held = {"mean": 0, "one more": 0}
    for _ in range(2000):
        *seen, fresh = np.exp(chance.normal(5, 0.1, 6))
        mean, next_one = mean_interval(seen), prediction_interval(seen)
        assert mean is not None and next_one is not None
        held["mean"] += mean.low <= math.exp(5) <= mean.high
        held["one more"] += next_one.low <= fresh <= next_one.high
    assert held["mean"] / 2000 == pytest.approx(0.95, abs=0.015)
    assert held["one more"] / 2000 == pytest.approx(0.95, abs=0.015)
    assert mean_interval([100.0]) is None and prediction_interval([]) is None


def test_each_round_turns_the_order_around() -> None:
    assert [order(n, 3) for n in range(2)] == [[0, 1, 2], [2, 1, 0]]


def test_a_drift_that_all_share_does_not_hide_who_is_better() -> None:
    drift = [1.0, 0.7, 1.2, 0.9, 1.1]
    found = rounds(
        ([100 * d for d in drift], 0.2),
        ([105 * d * e for d, e in zip(drift, (1.0, 1.01, 0.99, 1.0, 1.01), strict=True)], 0.3),
    )
    interval = mean_interval(found.ratios(1))
    assert interval is not None and interval.excludes_one and 1.04 < interval.mean < 1.07
    assert found.winner([0, 1]) == 1, "it is better beyond doubt, slower answers or not"
    assert found.indistinguishable_from(1, [0, 1]) == []


def test_of_those_that_are_not_told_apart_the_faster_is_taken() -> None:
    found = rounds(
        ([50.0, 51.0, 49.0], 0.1),
        ([100.0, 112.0, 95.0], 0.8),
        ([98.0, 104.0, 99.0], 0.4),
    )
    assert found.leader([1, 2]) == 1
    assert found.indistinguishable_from(1, [0, 1, 2]) == [2]
    assert found.winner([0, 1, 2]) == 2


def test_a_leader_without_a_latency_stays_the_leader() -> None:
    found = rounds(([100.0, 103.0, 101.0], 0.1), ([99.0, 97.0, 100.0], 0.1))
    reference = tuple(replace(r, latency=LatencyRecord()) for r in found.results[0])
    assert Rounds((reference, found.results[1])).winner([0, 1]) == 0


def test_few_rounds_do_not_make_the_slower_one_the_winner() -> None:
    for count in (1, 2):
        found = rounds(([114.0, 112.0][:count], 0.4), ([138.0, 141.0][:count], 2.0))
        assert found.winner([0, 1]) == 1


def test_who_failed_in_a_round_does_not_win() -> None:
    found = rounds(([50.0, 50.0], 0.1), ([200.0, None], 0.1), ([100.0, 100.0], 0.1))
    assert found.winner([1, 2]) == 2
    assert found.rates(1) == [200.0, 0.0]
    assert found.ratios(1) == [4.0]


def test_the_hosts_faults_are_no_rounds_of_a_configuration() -> None:
    lost = replace(result(None), host_fault=True)
    found = Rounds(((result(50.0), result(50.0)), (result(100.0), lost)))
    assert found.rates(1) == [100.0]
    assert found.leader([0, 1]) == 1
    nothing = Rounds(((result(50.0), result(None)), (lost, lost)))
    assert nothing.leader([0, 1]) == 0, "who was never measured does not win"
    limited = replace(result(None), failure=FailureKind.GENERATOR_LIMITED)
    assert Rounds(((result(50.0),), (limited,))).rates(1) == []


def test_a_reference_that_beats_all_finalists_wins(study: StudyStore) -> None:
    plan = plan_of(study, 2)
    rates = ([150.0, 151.0, 149.0], [110.0, 112.0, 111.0], [108.0, 111.0, 109.0])
    columns = tuple(tuple(result(rate) for rate in row) for row in rates)
    assert Confirmation(plan, Rounds(columns)).winner == 0


def test_what_is_far_behind_is_no_finalist(study: StudyStore) -> None:
    assert [request.number for request in plan_of(study, 5).requests] == [0, 2, 4, 1], (
        "80 of 120 is too far"
    )


@pytest.fixture
def study() -> StudyStore:
    study = StudyStore(build_space({}, 2), InMemoryStorage(), "confirmed")
    study.begin()
    for rps in (5.0, 100.0, 120.0, 80.0, 110.0):
        trial, request = study.ask() or pytest.fail("nothing asked")
        told = trial_result(
            request.number, rps, request.config, request.origin, state=TrialState.COMPLETE
        )
        study.tell(trial, told)
    return study


def plan_of(study: StudyStore, count: int = 3) -> Plan:
    return Plan.of(study.results, study.results[0], count)


def test_the_plan_is_the_reference_and_the_best(study: StudyStore) -> None:
    plan = plan_of(study)
    assert [request.number for request in plan.requests] == [0, 2, 4, 1]
    assert [request.known_rps for request in plan.requests] == [5.0, 120.0, 110.0, 100.0]
    assert [request.comparison_rps for request in plan.requests] == [None, 80.0, 80.0, 80.0]
    assert plan.finalists == [1, 2, 3]
    assert plan.name == plan_of(study).name != plan_of(study, 2).name


def test_a_reference_among_the_best_is_measured_once_a_round(study: StudyStore) -> None:
    plan = Plan.of(study.results, study.results[2], 2)
    assert [request.number for request in plan.requests] == [2, 4]
    assert plan.finalists == [0, 1]


class Host:
    """Measures at once; ends like a killed driver after so many measurements."""

    def __init__(self, ends_after: int = 1000):
        self.seen: list[tuple[int, int, str]] = []
        self._ends_after = ends_after

    async def measure(self, number: int, request: TrialRequest, where: Path) -> TrialResult:
        if len(self.seen) == self._ends_after:
            raise KeyboardInterrupt
        self.seen.append((number, request.number, where.name))
        rate = (request.known_rps or 0.0) * (0.9 + 0.01 * number)
        return trial_result(
            request.number,
            rate,
            request.config,
            request.origin,
            state=TrialState.COMPLETE,
            comparison_p99_s=0.5,
        )


def test_rounds_are_interleaved_and_what_is_known_is_not_measured_again(study: StudyStore) -> None:
    plan, host = plan_of(study, 2), Host(ends_after=4)

    def go_on(host: Host, rounds: int = 3, most: int = 9) -> None:
        asyncio.run(confirm(study, plan, rounds, lambda number: number < most, host.measure))

    with pytest.raises(KeyboardInterrupt):
        go_on(host)
    assert [(n, trial) for n, trial, _ in host.seen] == [(0, 0), (0, 2), (0, 4), (1, 4)]
    first = Confirmation.read(study, plan)
    assert first is not None and first.rounds.count == 1, "half a round counts for nothing"
    again = Host()
    go_on(again, most=2)
    assert again.seen == [(1, 2, "1-2"), (1, 0, "1-0")]
    go_on(again)
    found = Confirmation.read(study, plan)
    assert found is not None and found.rounds.count == 3
    assert len(again.seen) == 5
    assert found.rounds.rates(1) == pytest.approx([108.0, 109.2, 110.4])
    assert plan.requests[found.winner].number == 2


def test_what_was_confirmed_is_said(study: StudyStore) -> None:
    plan = plan_of(study, 2)
    rates = ([5.0, 5.0], [110.0, 112.0], [108.0, 111.0])
    p99 = (0.1, 0.9, 0.6)
    columns = tuple(
        tuple(result(rate, comparison_p99_s=p99_s) for rate in row)
        for row, p99_s in zip(rates, p99, strict=True)
    )
    text = confirmed(Confirmation(plan, Rounds(columns)))
    assert text.startswith("Confirmed in 2 rounds: trial 4 sustains 109 rps")
    assert "(its search said 110)" in text
    assert "times the reference, trial 0 (" in text
    assert (
        "Trial 2 is not told apart from it by its rate: p99 0.9 s against 0.6 s at 88 rps" in text
    )
    starved = tuple(replace(r, rate=RateRecord()) for r in columns[0])
    text = confirmed(Confirmation(plan, Rounds((starved, *columns[1:]))))
    assert "The reference, trial 0, sustained no rate" in text
    one = confirmed(Confirmation(plan, Rounds(tuple(column[:1] for column in columns))))
    assert one.startswith("Trial 4 sustains 108 rps, measured again in one round.")
