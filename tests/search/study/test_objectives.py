"""Each objective finds the known optimum of a simulated server, under its limits."""

from __future__ import annotations

from typing import Any

import pytest
from optuna.storages import InMemoryStorage

from benchmarks.law import Law
from benchmarks.simulated import SimulatedStub
from loadgen.rate.goal import Goal
from loadgen.rate.search import RateSearch
from search.confirmation.confirmation import Confirmation
from search.confirmation.estimates import REFERENCE
from search.confirmation.plan import Plan
from search.confirmation.race import RaceRules
from search.confirmation.steps import next_round, next_verification
from search.spec.dimension import Dimension
from search.spec.goal import GoalSection
from search.spec.space import Space
from search.spec.space_building import build_space
from search.study.store import StudyStore
from search.trial.judging import judge_trial
from search.trial.objective import Figures, Objective, Shortfall
from search.trial.ranking import closest_of, reference_of
from search.trial.request import TrialRequest
from search.trial.result import ServerRecord, TargetRecord, TrialResult, TrialState
from serving.configuration.config import ServerConfig
from tests.results import trial_result

SPACE = build_space(
    {
        "workers": Dimension("workers", 1, 4),
        "batch_size": Dimension("batch_size", choices=(1, 2, 4, 8, 16, 32)),
        "max_batch_delay_ms": Dimension("max_batch_delay_ms", choices=(1, 50, 100)),
        **dict.fromkeys(("netty_threads", "netty_client_threads", "mkl_threads")),
        "job_queue_size": 1000,
    },
    cores=2,
)
TARGET = TargetRecord(50.0, 0.1, 0.2, 0.3, 0, True, "")


def law_of(config: ServerConfig) -> Law:
    batch = config.batch_size or 1
    delay_s = (config.max_batch_delay_ms or 100) / 1000 if batch > 1 else 0.0
    return Law(config.workers or 2, batch, delay_s, 0.02, 0.004)


def memory_mb(config: ServerConfig) -> int:
    return 400 + (config.workers or 2) * (300 + 2 * (config.batch_size or 1))


async def measured(request: TrialRequest, goal: Goal) -> TrialResult:
    law, server = law_of(request.config), SimulatedStub(law_of(request.config), request.number)
    cycle = law.workers * law.batch
    search = RateSearch(
        goal,
        server,
        cycle,
        users=max(2, 2 * cycle),
        incumbent_rps=request.incumbent_rps,
        comparison_rps=request.comparison_rps,
        depth=request.depth,
    )
    record = ServerRecord(workers_ready=law.workers, peak_memory_mb=memory_mb(request.config))
    return judge_trial(request, await search.find(), [], record)


async def searched(section: dict[str, Any], trials: int) -> tuple[StudyStore, Goal]:
    """Run a search of this goal, and return its store."""
    goal = GoalSection.model_validate({"limits": {}, **section})
    space: Space = SPACE
    if goal.limits.workers is not None:
        space = space.limited_to_workers(goal.limits.workers)
    store = StudyStore(space, InMemoryStorage(), "test", objective=Objective.of(goal))
    store.begin()
    search_goal = Goal(**goal.rate_search())
    for _ in range(trials):
        if (asked := store.ask()) is None:
            break
        trial, request = asked
        store.tell(trial, await measured(request, search_goal))
    store.close_search("all trials were run")
    return store, search_goal


async def test_rate_is_highest_under_a_limit_of_the_memory() -> None:
    """3 × 16 gives 571 rps in 1396 MiB; 4 × 32 gives 865 rps in 1856 MiB."""
    store, _ = await searched({"limits": {"memory_mb": 1400}}, 18)
    best = store.best
    assert best is not None and memory_mb(best.config) <= 1400
    assert best.sustained_rps == pytest.approx(0.97 * 571, rel=0.06)
    assert any(memory_mb(r.config) > 1400 and r.sustained_rps for r in store.results)


async def test_rate_is_highest_under_a_limit_of_the_workers() -> None:
    store, _ = await searched({"limits": {"workers": 2}}, 14)
    assert store.best is not None and store.best.config.workers == 2
    assert store.best.sustained_rps == pytest.approx(0.97 * 432, rel=0.06)
    tried = [r.config.workers or 2 for r in store.results if not r.origin.is_reference]
    assert max(tried) == 2


async def test_rate_is_highest_under_a_limit_of_the_latency() -> None:
    """A batch of 32 takes 0.148 s, so that only smaller ones meet the limit."""
    store, _ = await searched({"limits": {"p99_s": 0.12}}, 18)
    best = store.best
    assert best is not None and best.sustained_rps
    assert (best.config.workers, best.config.max_batch_delay_ms) == (4, 1)
    assert best.config.batch_size in (8, 16, 32)
    assert (best.latency.p99_s or 1) <= 0.12
    missed = [r for r in store.results if r.latency.limit_excess > 0]
    assert missed and all(r.rate.unlimited_rps for r in missed)


async def test_latency_is_lowest_at_the_given_rate() -> None:
    """At 100 rps, 4 workers that wait for no batch are the fastest."""
    store, _ = await searched({"objective": "latency", "for_rps": 100.0}, 18)
    best = store.best
    assert best is not None and best.latency.target is not None
    assert best.config.workers == 4
    assert (best.latency.target.p99_s or 1) <= 0.08
    assert best.latency.target.is_served and (best.sustained_rps or 0) >= 100
    assert all(r.sustained_rps for r in store.results if r.state is TrialState.COMPLETE)


async def test_footprint_is_smallest_that_sustains_the_rate_with_headroom() -> None:
    """60 rps with a headroom of 0.3 need 85.7 rps: one worker with batches of 4 (111 rps)."""
    store, _ = await searched({"objective": "footprint", "for_rps": 60.0}, 18)
    best = store.best
    assert best is not None
    assert (best.config.workers, best.config.batch_size) == (1, 4)


async def test_closest_of_names_what_each_configuration_misses() -> None:
    """Nothing serves 5000 rps; nothing answers in less than 24 ms."""
    goals: list[dict[str, Any]] = [
        {"objective": "footprint", "for_rps": 5000.0},
        {"objective": "latency", "for_rps": 20.0, "limits": {"p99_s": 0.02}},
        {"limits": {"p99_s": 0.02}},
    ]
    for goal, limit in zip(goals, ("sustained_rps", "p99_s", "p99_s"), strict=True):
        store, _ = await searched(goal, 6)
        assert store.best is None and store.nominated == ()
        closest = closest_of(store.results, store.objective)
        assert 1 <= len(closest) <= 3
        excesses = [sum(s.excess for s in missed) for _, missed in closest]
        assert excesses == sorted(excesses) and excesses[0] > 0
        assert all([s.limit for s in missed] == [limit] for _, missed in closest)


@pytest.mark.parametrize(
    "section",
    [{"objective": "latency", "for_rps": 50.0}, {"objective": "footprint", "for_rps": 50.0}],
)
async def test_confirmation_compares_what_is_optimized(section: dict[str, Any]) -> None:
    store, goal = await searched(section, 12)
    reference = reference_of(store.results)
    assert reference is not None
    plan = Plan.of(store.results, reference, 3, store.nominated, store.objective)
    stored: dict[str, dict[str, TrialResult]] = {}
    rules = RaceRules(6)
    confirmation = Confirmation.read(stored, plan, rules)
    for _ in range(20):
        step = next_round(confirmation, stored) or next_verification(confirmation)
        if step is None:
            break
        for request in step.requests:
            visits = stored.setdefault(step.stage, {})
            number = 100 * len(stored) + request.number
            visit = TrialRequest(number, request.origin, request.config, depth=request.depth)
            visits[request.config.digest] = await measured(visit, goal)
        confirmation = Confirmation.read(stored, plan, rules)
    winner = confirmation.winner
    assert winner != REFERENCE and confirmation.verified[winner].sustained_rps
    assert confirmation.score_ratio is not None and confirmation.score_ratio.mean > 1
    rate = confirmation.mean_rps(winner)
    assert rate == pytest.approx(law_of(plan.requests[winner].config).capacity_rps, rel=0.1)


@pytest.mark.parametrize(
    ("figures", "objective", "missed"),
    [
        (Figures(100.0, memory_mb=900.0), Objective(memory_mb=1000), []),
        (
            Figures(100.0, memory_mb=900.0, workers=3),
            Objective(memory_mb=800, workers=2),
            ["peak memory 900 MiB, 12 % above the limit of 800 MiB",
             "workers 3, 50 % above the limit of 2"],
        ),
        (
            Figures(90.0, is_served=True, p99_s=0.6),
            Objective("latency", 80.0, 120.0, p99_s=0.5),
            ["sustained rate 90 rps, 25 % below the needed 120 rps",
             "p99 latency 0.6 s, 20 % above the limit of 0.5 s"],
        ),
        (
            Figures(0.0, unlimited_rps=50.0, limit_excess=0.5),
            Objective(p95_s=0.2),
            ["p95 latency 0.3 s, 50 % above the limit of 0.2 s"],
        ),
        (Figures(None, capacity_rps=60.0), Objective("footprint", 50.0, 100.0),
         ["sustained rate 60 rps, 40 % below the needed 100 rps"]),
    ],
)  # fmt: skip
def test_shortfalls_name_each_limit_with_its_excess(
    figures: Figures, objective: Objective, missed: list[str]
) -> None:
    assert [str(shortfall) for shortfall in objective.shortfalls(figures)] == missed


def test_shortfall_of_an_unknown_figure_is_the_largest() -> None:
    unknown, known = Shortfall("p99_s", None, 0.5), Shortfall("p99_s", 2.0, 0.5)
    assert unknown.excess > known.excess == 3.0
    assert str(unknown) == "p99 latency: unknown (limit 0.5 s)"


def test_figures_of_a_configuration_are_medians_over_its_trials() -> None:
    results = [
        trial_result(number, rate, peak_memory_mb=memory, target=TARGET)
        for number, (rate, memory) in enumerate([(90.0, 500), (110.0, 520), (100.0, 480)])
    ]
    figures = Figures.of(results)
    assert (figures.sustained_rps, figures.memory_mb, figures.p99_s) == (100.0, 520, 0.3)
    assert figures.is_served
