"""Whether another trial may start, and the reasons against it."""

from pathlib import Path
from typing import Any

import pytest

from search.confirmation.plan import VERIFICATION, Plan, plan_confirmation
from search.confirmation.steps import Step, verifications
from search.spec.loading import load_spec
from search.spec.schema import StudySpec
from search.study.budget import Budget
from search.study.store import StudyStore
from search.trial.request import TrialOrigin
from servetune.errors import FailureKind
from tests.results import visit_for
from tests.specifications import make_model_files, write_spec
from tests.stores import begun_store, measure


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_model_files(tmp_path)
    (tmp_path / "config.properties").write_text("default_workers_per_model=1\n")
    return tmp_path


def spec_with(folder: Path, **sections: Any) -> StudySpec:
    return load_spec(write_spec(folder, **sections))


def store_for(folder: Path, spec: StudySpec) -> StudyStore:
    return begun_store(folder, spec.build_space(2), baseline=spec.baseline())


def test_budget_ends_search_if_default_cannot_serve(folder: Path) -> None:
    spec = spec_with(folder)
    store = store_for(folder, spec)
    budget = Budget(spec, store)
    measure(store, cause="model does not load: the handler raised")
    assert not budget.may_start_trial() and budget.failed
    assert "the default configuration cannot serve: model does not load" in budget.reason


def test_budget_continues_if_default_lacks_memory(folder: Path) -> None:
    spec = spec_with(folder)
    store = store_for(folder, spec)
    budget = Budget(spec, store)
    measure(store, failure=FailureKind.OUT_OF_MEMORY, cause="out of memory: a worker was killed")
    assert budget.may_start_trial() and not budget.failed


def test_budget_requires_only_baseline_to_serve_if_there_is_one(folder: Path) -> None:
    spec = spec_with(folder, serving={"baseline": "config.properties"})
    store = store_for(folder, spec)
    budget = Budget(spec, store)
    assert measure(store, cause="model does not load").origin is TrialOrigin.DEFAULT
    assert budget.may_start_trial()
    assert measure(store, cause="model does not load").origin is TrialOrigin.BASELINE
    assert not budget.may_start_trial()
    assert "the baseline configuration cannot serve" in budget.reason


def test_budget_counts_time_of_earlier_drivers(folder: Path) -> None:
    spec = spec_with(folder, search={"time_budget_s": 600}, confirm=None)
    store = store_for(folder, spec)
    measure(store, 10.0, duration_s=50.0)
    store.record_spent(500.0)
    assert Budget(spec, store).may_start_trial(), "100 s remain"
    store.record_spent(580.0)
    budget = Budget(spec, store)
    assert not budget.may_start_trial()
    assert budget.reason == (
        "another trial of about 50 s no longer fits into the time budget: of 600 s, 20 s are left"
    )
    store.record_spent(600.0)
    budget = Budget(spec, store)
    assert not budget.may_start_trial()
    assert budget.reason == "the time budget of 600 s is spent"


def confirming_store(
    folder: Path, slowest_rps: float = 10.0, **search: Any
) -> tuple[StudySpec, StudyStore, Plan]:
    """Return a store with two trials whose visits are expected to take 20 s."""
    spec = spec_with(
        folder,
        search=search,
        confirm={"rounds": 4, "finalists": 1, "time_limit_s": 150},
        goal={"window_s": 1, "window_limit_s": 10},
    )
    store = store_for(folder, spec)
    for rps in (slowest_rps, 20.0):
        measure(store, rps, duration_s=50.0, phases_s={"start": 8.0, "stop": 2.0})
    plan = plan_confirmation(spec, store.results)
    assert plan is not None
    return spec, store, plan


def visit_round(store: StudyStore, plan: Plan, number: int, duration_s: float = 20.0) -> None:
    for request in plan.requests:
        store.record_visit(plan.name, str(number), visit_for(request, 20.0, duration_s=duration_s))


def test_budget_reserves_time_for_confirmation(folder: Path) -> None:
    spec, store, plan = confirming_store(folder, time_budget_s=600)
    # 4 rounds of 2 visits of 20 s, at most 150 s, then a verification: a visit, a window of 1 s and
    # three of 20 requests below 20 rps, with their drains: 26 s. The reference's at 10 rps, with
    # the window at the comparison rate, would take 1.3 × 33 s, of which a third of 150 s may be
    # used: 43 s.
    store.record_spent(600 - 219 - 51.0)
    assert Budget(spec, store).may_start_trial()
    store.record_spent(600 - 216 - 49.0)
    assert not Budget(spec, store).may_start_trial(), "a trial takes 50 s"
    visit_round(store, plan, 0)
    assert Budget(spec, store).may_start_trial(), "40 s of it were spent"


def test_budget_keeps_no_time_for_a_latency_curve_that_takes_long(folder: Path) -> None:
    spec, store, _ = confirming_store(folder, time_budget_s=600, slowest_rps=1.0)
    # Windows of 20 requests at 0.5, 0.7, 0.9 and 1 rps take more than a third of 150 s.
    store.record_spent(600 - 176 - 51.0)
    assert Budget(spec, store).may_start_trial()
    store.record_spent(600 - 174 - 49.0)
    assert not Budget(spec, store).may_start_trial()


def test_budget_reserves_at_most_a_share(folder: Path) -> None:
    spec, store, _ = confirming_store(folder, time_budget_s=300)
    store.record_spent(300 - 120 - 51.0)
    assert Budget(spec, store).may_start_trial(), "at most 0.4 of 300 s are reserved"
    off = spec_with(folder, search={"time_budget_s": 300}, confirm={"rounds": 0})
    store.record_spent(300 - 51.0)
    assert not Budget(spec, store).may_start_trial() and Budget(off, store).may_start_trial()
    assert Budget(off, store).pending_confirmation() is None


def test_budget_uses_measured_durations_of_visits(folder: Path) -> None:
    spec, store, plan = confirming_store(folder, time_budget_s=600)
    visit_round(store, plan, 0, duration_s=5.0)
    # A round needs 1.5 × 5 s, and a verification 5 s and about 5.8 s of windows.
    store.record_spent(600 - 18.5)
    assert Budget(spec, store).may_start_step(Step("2", 2, plan.requests))
    store.record_spent(600 - 18.0)
    budget = Budget(spec, store)
    assert not budget.may_start_step(Step("2", 2, plan.requests))
    assert budget.may_start_step(Step(VERIFICATION, 1, plan.requests[:1]))
    store.record_spent(600 - 10.0)
    both = Step(VERIFICATION, 1, plan.requests)
    assert not Budget(spec, store).may_start_step(both), (
        "half of the second would exceed the budget"
    )
    assert budget.pending_confirmation() is not None


def test_budget_prefers_a_second_round_to_the_latency_curve(folder: Path) -> None:
    spec, store, plan = confirming_store(folder, time_budget_s=600)
    visit_round(store, plan, 0, duration_s=5.0)
    # 1.5 × 5 s, and a verification of 5 s and about 2.3 s of windows.
    second = Step("1", 1, plan.requests)
    store.record_spent(600 - 15.2)
    assert Budget(spec, store).may_start_step(second)
    store.record_spent(600 - 14.4)
    assert not Budget(spec, store).may_start_step(second)


def test_budget_verifies_without_latency_curve_if_time_is_short(folder: Path) -> None:
    spec, store, plan = confirming_store(folder, time_budget_s=600)
    for number in range(2):
        visit_round(store, plan, number, duration_s=5.0)
    # The winner needs 5 s and about 5.8 s of windows, of which 2.3 s are not for the curve.
    for left_s, has_curve in ((9.0, True), (7.5, False)):
        store.record_spent(600 - left_s)
        budget = Budget(spec, store)
        confirmation = budget.confirmation()
        assert confirmation is not None
        step = next(s for s in verifications(confirmation) if budget.may_start_step(s))
        assert [request.latency_curve for request in step.requests] == [has_curve]


def test_budget_leaves_out_the_latency_at_todays_rate_before_the_curve(folder: Path) -> None:
    spec, store, plan = confirming_store(folder, slowest_rps=4.0, time_budget_s=600)
    for number in range(2):
        visit_round(store, plan, number, duration_s=5.0)
    # As in the test above; 20 requests at 4 rps take 5 s more, with their drain.
    for left_s, has_curve, from_rps in ((14.0, True, 4.0), (9.0, True, None), (7.5, False, None)):
        store.record_spent(600 - left_s)
        budget = Budget(spec, store)
        confirmation = budget.confirmation()
        assert confirmation is not None
        step = next(s for s in verifications(confirmation) if budget.may_start_step(s))
        (request,) = step.requests
        assert (request.latency_curve, request.curve_from_rps) == (has_curve, from_rps)
    assert budget.confirmation_time.verification_s() == pytest.approx(
        budget.confirmation_time.verification_s(next(iter(verifications(confirmation))).requests[0])
    ), "the time that is kept is that of the longest"


def test_budget_starts_a_latency_curve_only_if_it_ends_in_time(folder: Path) -> None:
    spec, store, plan = confirming_store(folder, time_budget_s=600)
    visit_round(store, plan, 0, duration_s=5.0)
    # At 10 rps, without a window at the comparison rate: 1.3 × (5 s and 11.7 s of windows).
    curve = Step(VERIFICATION, 1, (plan.verification(0, is_compared=False),), is_curve=True)
    assert Budget(spec, store).confirmation_time.expected_s(curve) == pytest.approx(16.7, abs=0.1)
    store.record_spent(600 - 22.0)
    assert Budget(spec, store).may_start_step(curve)
    store.record_spent(600 - 21.0)
    assert not Budget(spec, store).may_start_step(curve)


def test_budget_keeps_time_for_latency_curves_after_three_rounds(folder: Path) -> None:
    spec, store, plan = confirming_store(folder, time_budget_s=600)
    for number in range(3):
        visit_round(store, plan, number, duration_s=5.0)
    # 1.5 × 5 s for a round and 10.8 s for the winner, as before; 22 s for the reference's curve.
    fourth = Step("3", 3, plan.requests)
    store.record_spent(600 - 42.0)
    assert Budget(spec, store).may_start_step(fourth)
    store.record_spent(600 - 38.0)
    assert not Budget(spec, store).may_start_step(fourth)


def test_budget_limits_confirmation_after_three_rounds(folder: Path) -> None:
    spec, store, plan = confirming_store(folder)
    for number in range(3):
        visit_round(store, plan, number, duration_s=70.0)
        allowed = Budget(spec, store).may_start_step(Step(str(number + 1), number + 1, ()))
        assert allowed is (number + 1 < 3), "150 s are spent after the second round"
    verified = Budget(spec, store).pending_confirmation()
    assert verified is not None, "the rate of the winner is verified in any case"


def test_budget_starts_no_step_after_interrupt(folder: Path) -> None:
    spec, store, _ = confirming_store(folder)
    budget = Budget(spec, store)
    assert budget.pending_confirmation() is not None
    budget.interrupted.set()
    assert budget.pending_confirmation() is None


def test_budget_does_not_reopen_search_that_ended(folder: Path) -> None:
    spec = spec_with(folder, search={"trials": 3}, confirm={"rounds": 2})
    store = store_for(folder, spec)
    measure(store, 10.0)
    store.close_search("the target was reached")
    store.end("the target was reached")
    resumed = store_for(folder, spec)
    assert resumed.end_reason is None, "the run was resumed"
    budget = Budget(spec, resumed)
    assert not budget.may_start_trial() and budget.reason == "the target was reached"
    resumed.reopen_search()
    assert Budget(spec, resumed).may_start_trial()


def test_budget_excludes_limited_number_of_host_failures_from_trials(folder: Path) -> None:
    spec = spec_with(folder, search={"trials": 2})
    store = store_for(folder, spec)
    measure(store, 10.0)
    measure(store, cause="trial process lost", host_fault=True)
    budget = Budget(spec, store)
    assert budget.may_start_trial()
    for _ in range(11):
        measure(store, cause="trial process lost", host_fault=True)
    assert not budget.may_start_trial() and budget.reason == "all 2 trials were run"


@pytest.mark.parametrize(
    ("limit", "probability", "may_start"),
    [
        pytest.param(0.1, 0.05, False, id="unlikely"),
        pytest.param(0.1, 0.2, True, id="likely"),
        pytest.param(0.0, 0.05, True, id="switched off"),
        pytest.param(0.1, None, True, id="starting points wait"),
    ],
)
def test_budget_ends_search_if_improvement_is_unlikely(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: float,
    probability: float | None,
    may_start: bool,
) -> None:
    spec = spec_with(folder, search={"min_improvement_probability": limit})
    store = store_for(folder, spec)
    measure(store, 10.0)
    monkeypatch.setattr(store, "improvement_probability", lambda: probability)
    budget = Budget(spec, store)
    assert budget.may_start_trial() is may_start
    if not may_start:
        assert "more than 3 % faster (probability below 10 %)" in budget.reason


@pytest.mark.parametrize(
    ("search", "may_probe"),
    [
        pytest.param({"probes": True}, True, id="no limit"),
        pytest.param({}, False, id="switched off"),
        pytest.param({"probes": True, "trials": 2}, False, id="last trial"),
        pytest.param({"probes": True, "time_budget_s": 10_000}, True, id="much time"),
        pytest.param({"probes": True, "time_budget_s": 100}, False, id="time for one more trial"),
    ],
)
def test_budget_permits_probes_if_a_later_trial_can_use_them(
    folder: Path, search: dict[str, Any], may_probe: bool
) -> None:
    spec = spec_with(folder, search=search, confirm={"rounds": 0})
    store = store_for(folder, spec)
    measure(store, 10.0, duration_s=60.0)
    assert Budget(spec, store).may_probe() is may_probe


def test_budget_tries_a_configuration_after_a_reference_that_took_long(folder: Path) -> None:
    sections = {"search": {"time_budget_s": 230}, "goal": {"limits": {"p99_s": 0.25}}}
    spec = spec_with(folder, **sections)
    store = store_for(folder, spec)
    phases_s = {"start": 3.0, "warm-up": 8.0, "verification": 8.0, "bracketing": 51.0, "stop": 1.0}
    figures = {"capacity_rps": 48.0, "duration_s": 71.0, "phases_s": phases_s}
    measure(store, 38.8, **figures)
    store.record_spent(77.0)
    assert Budget(spec, store).may_start_trial()
    measure(store, 300.0, **{**figures, "capacity_rps": 320.0})
    store.record_spent(150.0)
    assert not Budget(spec, store).may_start_trial(), "that one took 71 s"


@pytest.mark.parametrize("spent_s", [140.0, 290.0])
def test_budget_keeps_no_time_to_confirm_a_reference_alone(folder: Path, spent_s: float) -> None:
    spec = spec_with(folder, search={"time_budget_s": 330})
    store = store_for(folder, spec)
    phases_s = {"start": 6.0, "warm-up": 15.0, "verification": 9.0, "bracketing": 103.0}
    figures = {"capacity_rps": 2.4, "duration_s": 134.0, "phases_s": phases_s}
    measure(store, 1.7, **figures)
    store.record_spent(spent_s)
    assert Budget(spec, store).may_start_trial()
    store.record_spent(310.0)
    assert not Budget(spec, store).may_start_trial(), "a trial takes 31 s"


@pytest.mark.parametrize(
    ("goal", "least_s"),
    [
        pytest.param({}, 14, id="closed loop"),
        pytest.param({"limits": {"p99_s": 0.25}}, 24, id="window within the limit"),
        pytest.param({"objective": "latency", "for_rps": 100}, 24, id="window at a rate"),
    ],
)
def test_budget_expects_visits_with_the_windows_of_the_goal(
    folder: Path, goal: dict[str, Any], least_s: float
) -> None:
    spec = spec_with(folder, search={"time_budget_s": 600}, goal=goal)
    store = store_for(folder, spec)
    phases_s = {"start": 3.0, "warm-up": 8.0, "verification": 60.0, "stop": 1.0}
    measure(store, 300.0, capacity_rps=320.0, duration_s=72.0, phases_s=phases_s)
    assert least_s <= Budget(spec, store).confirmation_time.visit_s() < least_s + 10
