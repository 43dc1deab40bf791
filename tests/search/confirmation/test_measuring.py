"""The plan of a confirmation, its steps, its winner and its record."""

import asyncio
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from optuna.storages import InMemoryStorage

from loadgen.rate.goal import Depth
from search.confirmation.confirmation import Confirmation
from search.confirmation.measuring import confirm
from search.confirmation.noise import Variance
from search.confirmation.plan import VERIFICATION, Plan
from search.confirmation.race import RaceRules
from search.confirmation.steps import Step
from search.confirmation.summary import confirmation_summary
from search.confirmation.visits import visit_rps
from search.spec.space_building import build_space
from search.study.store import StudyStore
from search.trial.objective import Objective
from search.trial.request import TrialRequest
from search.trial.result import TrialResult
from servetune.errors import FailureKind
from serving.configuration.config import ServerConfig
from tests.results import result_for, trial_result, visit_for
from tests.stores import measure

RULES = RaceRules(rounds=10)


@pytest.fixture
def store() -> StudyStore:
    store = StudyStore(build_space({}, 2), InMemoryStorage(), "confirmed")
    store.begin()
    for rps in (5.0, 100.0, 120.0, 80.0, 110.0):
        measure(store, rps)
    return store


def plan_for(store: StudyStore, count: int = 3) -> Plan:
    return Plan.of(store.results, store.results[0], count)


class Host:
    """Measures at once, with a little noise; raises KeyboardInterrupt after some measurements.

    Args:
        rates: closed-loop rates by trial number; those of the plan if a number is missing.
        latencies_s: p99 at the comparison rate, by trial number.
    """

    def __init__(
        self,
        rates: dict[int, float] | None = None,
        latencies_s: dict[int, float] | None = None,
        ends_after: int = 1000,
    ):
        self.measured: list[tuple[str, int]] = []
        self._rates, self._latencies_s = rates or {}, latencies_s or {}
        self._ends_after = ends_after

    async def measure(self, step: Step, request: TrialRequest, folder: Path) -> TrialResult:
        if len(self.measured) == self._ends_after:
            raise KeyboardInterrupt
        self.measured.append((step.stage, request.number))
        assert folder.name == f"{step.stage}-{request.number}"
        rate = self._rates.get(request.number, request.known_rps or 0.0)
        noise = np.random.default_rng(len(self.measured)).normal(0, 0.02)
        rate *= math.exp(noise)
        if request.depth is Depth.ESTIMATE:
            assert request.comparison_rps is None
            return visit_for(request, rate)
        latency_s = self._latencies_s.get(request.number, 0.5) if request.comparison_rps else None
        return result_for(request, 0.9 * rate, capacity_rps=rate, comparison_p99_s=latency_s)


def run(
    store: StudyStore,
    plan: Plan,
    host: Host,
    may_start: Callable[[Step], bool] = lambda step: True,
    rules: RaceRules = RULES,
    expected_s: Callable[[Step], float] = lambda step: 0.0,
) -> Confirmation:
    def read() -> Confirmation:
        return Confirmation.read(store.visits(plan.name), plan, rules)

    asyncio.run(confirm(store, plan, read, may_start, host.measure, expected_s))
    return read()


def test_plan_has_reference_then_best(store: StudyStore) -> None:
    plan = plan_for(store)
    assert [request.number for request in plan.requests] == [0, 2, 4, 1]
    assert [request.known_rps for request in plan.requests] == [5.0, 120.0, 110.0, 100.0]
    assert [request.comparison_rps for request in plan.requests] == [None, 80.0, 80.0, 80.0]
    assert plan.finalists == [1, 2, 3]
    assert plan.reference_share == pytest.approx(5 / 120)
    assert plan.name == plan_for(store).name != plan_for(store, 2).name


def test_plan_has_share_of_the_estimate_that_was_sustained(store: StudyStore) -> None:
    measure(store, 150.0, capacity_rps=600.0)
    request = plan_for(store).requests[1]
    assert (request.known_rps, request.known_share) == (150.0, 0.25)


@pytest.mark.parametrize(
    ("objective", "share"),
    [
        pytest.param(Objective(), 0.5, id="closed loops"),
        pytest.param(Objective(p99_s=1.0), 1.0, id="rates within a limit"),
        pytest.param(Objective("footprint", 2.0, 2.0, p99_s=1.0), 0.5, id="footprint"),
    ],
)
def test_confirmation_knows_the_share_of_a_reference_from_the_search(
    objective: Objective, share: float
) -> None:
    searched = [
        trial_result(0, 5.0, ServerConfig(), capacity_rps=10.0),
        trial_result(1, 100.0, ServerConfig(workers=2), capacity_rps=110.0),
    ]
    searched = [replace(r, server=replace(r.server, peak_memory_mb=900)) for r in searched]
    plan = replace(Plan.of(searched, searched[0], 1), objective=objective)
    confirmation = Confirmation.read({}, plan, RULES)
    assert confirmation.winner == 1 and confirmation.expected_share(1) is None
    assert confirmation.expected_share(0) == share


def test_plan_has_reference_among_finalists_once(store: StudyStore) -> None:
    plan = Plan.of(store.results, store.results[2], 2)
    assert [request.number for request in plan.requests] == [2, 4]
    assert plan.finalists == [1]


def test_plan_leaves_out_configurations_far_below_best(store: StudyStore) -> None:
    assert [request.number for request in plan_for(store, 5).requests] == [0, 2, 4, 1], (
        "80 is less than 70 % of 120"
    )


def test_plan_visits_shortly_and_verifies_thoroughly(store: StudyStore) -> None:
    plan = plan_for(store)
    assert plan.visit(1).depth is Depth.ESTIMATE and plan.visit(1).comparison_rps is None
    verification = plan.verification(1, is_compared=True)
    assert verification.depth is Depth.FULL and verification.latency_curve
    assert verification.comparison_rps == 80.0
    assert plan.verification(1, is_compared=False).comparison_rps is None
    assert verification.curve_from_rps is None
    with_reference = plan.verification(1, is_compared=True, at_reference_rate=True)
    assert plan.reference_rps and with_reference.curve_from_rps == plan.reference_rps
    shorter = plan.verification(1, is_compared=True, has_curve=False, at_reference_rate=True)
    assert shorter.curve_from_rps is None


def test_confirm_interleaves_visits_then_verifies_winner(store: StudyStore) -> None:
    host = Host()
    found = run(store, plan_for(store, 2), host)
    assert host.measured[:6] == [("0", 0), ("0", 2), ("0", 4), ("1", 4), ("1", 2), ("2", 0)]
    verified = [number for stage, number in host.measured if stage == VERIFICATION]
    assert verified == [2, 0], "the winner, then the latency curve of the reference"
    assert found.plan.requests[found.winner].number == 2
    sustained = found.sustained(found.winner)
    assert sustained is not None and sustained.mean == pytest.approx(0.9 * 120, rel=0.02)
    assert found.is_conclusive


def test_confirm_keeps_visits_of_killed_driver(store: StudyStore) -> None:
    plan, uninterrupted = plan_for(store, 2), Host()
    with pytest.raises(KeyboardInterrupt):
        run(store, plan, host := Host(ends_after=4))
    first = Confirmation.read(store.visits(plan.name), plan, RULES)
    assert first.race.rounds == 1, "an incomplete round does not count"
    resumed = Host()
    run(store, plan, resumed)
    fresh = StudyStore(build_space({}, 2), InMemoryStorage(), "other")
    run(fresh, plan, uninterrupted)
    assert host.measured + resumed.measured == uninterrupted.measured


def test_confirm_verifies_when_time_is_over(store: StudyStore) -> None:
    def may_start(step: Step) -> bool:
        return not step.is_curve and (step.is_verification or step.round_number < 2)

    host = Host()
    found = run(store, plan_for(store, 2), host, may_start)
    assert found.race.rounds == 2 and found.is_conclusive
    assert host.measured[-1] == (VERIFICATION, 2)
    more = Host()
    run(store, plan_for(store, 2), more, may_start)
    assert more.measured == [], "a resumed run without more time measures nothing"
    found = run(store, plan_for(store, 2), more)
    assert found.race.rounds > 2 and more.measured[0] == ("2", 0)


def test_confirm_verifies_leader_alone_if_there_is_no_time_for_the_tied(store: StudyStore) -> None:
    def may_start(step: Step) -> bool:
        if step.is_curve:
            return False
        return len(step.requests) == 1 if step.is_verification else step.round_number < 2

    plan, host = plan_for(store, 2), Host(rates={2: 100.0, 4: 99.9})
    found = run(store, plan, host, may_start)
    winner = plan.requests[found.winner].number
    assert [visit for visit in host.measured if visit[0] == VERIFICATION] == [
        (VERIFICATION, winner)
    ]
    assert len(found.comparisons) == 1 and found.comparisons[0].is_indistinguishable
    assert sorted(found.missing_curves) == sorted({0, 1, 2} - {found.winner})


def test_confirm_measures_latency_curves_that_fit_the_shortest_first(store: StudyStore) -> None:
    seconds = {0: 60.0, 2: 30.0, 4: 40.0, 1: 10.0}

    def expected_s(step: Step) -> float:
        return sum(seconds[request.number] for request in step.requests)

    def may_start(step: Step) -> bool:
        is_both = step.is_verification and len(step.requests) > 1
        return not is_both and expected_s(step) < 60 if step.is_verification else True

    plan, host = plan_for(store), Host(rates={2: 100.0, 4: 99.9, 1: 50.0})
    found = run(store, plan, host, may_start, RaceRules(2), expected_s)
    numbers = [number for stage, number in host.measured if stage == VERIFICATION]
    winner = plan.requests[found.winner].number
    others = sorted({2, 4, 1} - {winner}, key=seconds.__getitem__)
    tied = {plan.requests[c.index].number for c in found.comparisons if c.is_indistinguishable}
    assert numbers == [winner, *(n for n in others if n in tied)], "the reference takes too long"
    assert [plan.requests[i].number for i in found.missing_curves] == [0]
    more = Host(rates={2: 100.0, 4: 99.9, 1: 50.0})
    found = run(store, plan, more, rules=RaceRules(2))
    assert more.measured == [(VERIFICATION, 0)], "a resumed run with more time measures the rest"
    assert found.missing_curves == [] and plan.requests[found.winner].number == winner


def test_confirm_measures_no_latency_curve_of_a_reference_that_does_not_serve(
    store: StudyStore,
) -> None:
    host = Host(rates={0: 0.0})
    found = run(store, plan_for(store, 1), host)
    assert [number for stage, number in host.measured if stage == VERIFICATION] == [2]
    assert found.missing_curves == []


def test_confirm_extends_rounds(store: StudyStore) -> None:
    rules = RaceRules(rounds=2)
    assert run(store, plan_for(store, 2), Host(), rules=rules).race.rounds == 2
    assert run(store, plan_for(store, 2), Host(), rules=RaceRules(4)).race.rounds == 4


def test_confirm_ends_if_no_finalist_serves(store: StudyStore) -> None:
    host = Host(rates={2: 0.0, 4: 0.0})
    found = run(store, plan_for(store, 2), host)
    assert found.race.rounds == 2
    assert not found.is_conclusive or found.winner == 0


def test_winner_is_fastest_to_answer_of_indistinguishable_finalists(store: StudyStore) -> None:
    rates = {2: 110.0, 4: 109.0, 1: 80.0}
    found = run(store, plan_for(store), Host(rates, {2: 0.9, 4: 0.3}))
    assert found.plan.requests[found.winner].number == 4
    tied, slow = found.comparisons
    assert tied.is_indistinguishable and found.plan.requests[tied.index].number == 2
    assert not slow.is_indistinguishable and slow.drop is not None


def test_winner_is_faster_despite_its_latency(store: StudyStore) -> None:
    found = run(store, plan_for(store, 2), Host({2: 120.0, 4: 100.0}, {2: 0.9, 4: 0.3}))
    assert found.plan.requests[found.winner].number == 2
    (slower,) = found.comparisons
    assert slower.differs and slower.ratio is not None and slower.ratio.high < 1


def test_winner_is_reference_if_no_finalist_is_faster(store: StudyStore) -> None:
    plan = Plan.of(store.results, store.results[1], 2)
    assert [request.number for request in plan.requests] == [1, 2, 4]
    found = run(store, plan, Host({1: 150.0}))
    assert found.winner == 0 and found.comparisons == []
    assert found.ratio is not None and found.ratio.high < 1
    assert found.sustained(0) is not None


def test_confirmation_leaves_out_measurements_that_show_nothing(store: StudyStore) -> None:
    lost = replace(trial_result(2), host_fault=True)
    limited = replace(trial_result(2), failure=FailureKind.GENERATOR_LIMITED)
    assert visit_rps(lost) is None and visit_rps(limited) is None
    assert visit_rps(trial_result(2)) == 0.0, "the server failed"


def test_confirmation_drops_finalist_that_fails(store: StudyStore) -> None:
    found = run(store, plan_for(store, 2), Host(rates={2: 0.0}))
    assert found.plan.requests[found.winner].number == 4
    (failed,) = found.comparisons
    assert failed.failed == 1 and failed.drop is not None and failed.drop.rounds == 1


def test_confirmation_uses_prior_of_the_visited_host(store: StudyStore) -> None:
    plan = plan_for(store, 1)
    stored = {
        "0": {r.config.digest: visit_for(r, 100.0, facts={"host": "a"}) for r in plan.requests}
    }

    def prior_for(visit: TrialResult) -> Variance | None:
        return Variance(0.01, 20) if visit.host.name == "a" else None

    alone = Confirmation.read(stored, plan, RULES)
    helped = Confirmation.read(stored, plan, RULES, prior_for)
    assert alone.prediction(1) is None, "one visit shows no noise"
    assert helped.prediction(1) is not None and helped.prior == Variance(0.01, 20)


def test_confirmation_summary_is_plain_data(store: StudyStore) -> None:
    summary = confirmation_summary(run(store, plan_for(store), Host()))
    data = json.loads(json.dumps(summary))
    assert data["winner"] == "trial 2" and data["configs"][0]["config"] == "trial 0"
    low, mean, high = (data["ratio_to_reference"][key] for key in ("low", "mean", "high"))
    assert low < mean < high and mean == pytest.approx(24, rel=0.05)
    assert data["noise"]["prior_sd"] is None and data["noise"]["sd"] > 0
