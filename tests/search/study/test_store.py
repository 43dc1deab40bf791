"""The store of a study: what it proposes, records and restores."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState as OptunaTrialState

from loadgen.rate.goal import Depth
from search.spec.dimension import Dimension
from search.spec.space_building import build_space
from search.study.store import StudyStore
from search.trial.objective import Objective
from search.trial.ranking import finalists, rate_of, reference_of
from search.trial.request import TrialOrigin
from search.trial.result import TargetRecord, TrialState
from servetune.errors import FailureKind
from serving.configuration.config import ServerConfig
from tests.results import result_for, trial_result
from tests.stores import SPACE, ask, begun_store, measure, open_store


def test_store_proposes_default_baseline_and_recommended_points_first(tmp_path: Path) -> None:
    baseline = ServerConfig(workers=77, batch_size=3)
    store = begun_store(tmp_path, baseline=baseline)
    requests = [measure(store, rps) for rps in (4.0, 20.0, 60.0, 110.0, 90.0, 80.0, 70.0)]
    assert [request.origin for request in requests] == [
        TrialOrigin.DEFAULT,
        TrialOrigin.BASELINE,
        *[TrialOrigin.GUIDE] * 4,
        TrialOrigin.SAMPLED,
    ]
    assert requests[0].config == ServerConfig()
    assert requests[1].config == baseline
    rates_to_beat = [request.incumbent_rps for request in requests]
    assert rates_to_beat == [None, None, 20.0, 60.0, *[110.0] * 3]
    assert [request.number for request in requests] == list(range(7))


def test_store_measures_a_baseline_that_equals_the_default_once_as_baseline(
    tmp_path: Path,
) -> None:
    store = begun_store(tmp_path, baseline=ServerConfig())
    first, second = (measure(store, rps) for rps in (20.0, 60.0))
    assert (first.origin, first.config) == (TrialOrigin.BASELINE, ServerConfig())
    assert second.origin is TrialOrigin.GUIDE
    reference = reference_of(store.results)
    assert reference is not None and reference.origin is TrialOrigin.BASELINE


def test_store_samples_within_choices_if_default_is_outside(tmp_path: Path) -> None:
    space = build_space({"batch_size": Dimension("", choices=(8, 64))}, cores=2)
    store = begun_store(tmp_path, space)
    for _ in range(14):
        trial, request = ask(store)
        store.tell(trial, result_for(request, float(request.config.batch_size or 1)))
    assert [r.config.batch_size for r in store.results][-1] in (8, 64)


def test_store_proposes_each_configuration_once(tmp_path: Path) -> None:
    fixed = dict.fromkeys(("max_batch_delay_ms", "netty_threads", "netty_client_threads"), 2)
    space = build_space(
        {
            **fixed,
            "mkl_threads": 1,
            "workers": Dimension("", 1, 2),
            "batch_size": Dimension("", 1, 2),
        },
        cores=2,
    )
    store = begun_store(tmp_path, space, incumbent_every=100)
    digests = []
    while (asked := store.ask()) is not None:
        trial, request = asked
        digests.append(request.config.digest)
        store.tell(trial, result_for(request, None if len(digests) % 2 else 5.0))
    assert len(digests) == len(set(digests))
    assert len(digests) == 1 + 4, "TorchServe's default, then the whole space"


def test_store_does_not_propose_equivalent_configuration(tmp_path: Path) -> None:
    space = build_space({}, 2)
    (recommended, *_) = [space.config(point) for point in space.recommended_points()]
    equivalent = replace(recommended, netty_threads=None, netty_client_threads=None)
    assert space.identity(equivalent) == space.identity(recommended)
    assert equivalent.digest != recommended.digest
    store = begun_store(tmp_path, space, baseline=equivalent)
    configs = [measure(store, 10.0).config for _ in range(6)]
    assert equivalent in configs and recommended not in configs


def test_store_repeats_failure_of_host_once_and_of_configuration_never(tmp_path: Path) -> None:
    store = begun_store(tmp_path)
    first, *_ = [measure(store, cause="port in use", host_fault=f) for f in (True, True, False)]
    assert (first.origin, first.config) == (TrialOrigin.DEFAULT, ServerConfig())
    states = [t.state.name for t in store._study.get_trials(deepcopy=False)][:2]
    assert states == ["FAIL", "FAIL"], "the sampler does not use failures of the host"
    trial, request = ask(store)
    while request.origin is not TrialOrigin.SAMPLED:
        store.tell(trial, result_for(request, 10.0))
        trial, request = ask(store)
    assert len([r for r in store.results if r.origin is TrialOrigin.DEFAULT]) == 2


def test_store_measures_incumbent_again_every_few_trials(tmp_path: Path) -> None:
    store = begun_store(tmp_path, incumbent_every=4)
    origins = [
        measure(store, 100.0 if n == 2 else 60.0, capacity_rps=100.0).origin for n in range(14)
    ]
    assert TrialOrigin.INCUMBENT in origins
    rate = rate_of(store.results, store.results[2].config)
    assert rate is not None
    assert rate < 100, "the median over the measurements replaces a lucky first one"


def test_store_excludes_recommended_point_that_lacks_memory(tmp_path: Path) -> None:
    store = begun_store(tmp_path, build_space({}, 4))
    requests = [
        measure(store, state=TrialState.FAILED, failure=FailureKind.MEMORY_BUDGET),
        *[measure(store, 5.0) for _ in range(3)],
    ]
    # The default has 4 workers, so recommended points with as many are too large; one has 1.
    assert [(request.origin, request.config.batch_size) for request in requests[:2]] == [
        (TrialOrigin.DEFAULT, None),
        (TrialOrigin.GUIDE, 32),
    ]
    assert [request.origin for request in requests[2:]] == [TrialOrigin.SAMPLED] * 2


def test_store_keeps_recommended_points_if_another_model_lacked_memory(tmp_path: Path) -> None:
    store = begun_store(tmp_path, build_space({"models.other.workers": Dimension("", 1, 8)}, 4))
    request = measure(store, state=TrialState.FAILED, failure=FailureKind.MEMORY_BUDGET)
    assert request.origin is TrialOrigin.DEFAULT
    # The default has 4 workers of the other model; the recommended points have 2 or 1.
    assert [measure(store, 5.0).origin for _ in range(4)] == [TrialOrigin.GUIDE] * 4


def test_store_tell_passes_latency_excess_to_sampler(tmp_path: Path) -> None:
    store = begun_store(tmp_path)
    measure(store, None, limit_excess=0.5)
    measure(store, 10.0, limit_excess=-0.2)
    trials = store._study.get_trials(states=(OptunaTrialState.FAIL, OptunaTrialState.COMPLETE))
    assert [dict(trial.constraints) for trial in trials] == [{"limits": 0.5}, {"limits": -0.2}]


def test_store_begin_continues_study_of_killed_driver(tmp_path: Path) -> None:
    store = begun_store(tmp_path)
    measured = [measure(store, 10.0 + n).config for n in range(3)]
    ask(store)
    resumed = begun_store(tmp_path)
    assert [r.config for r in resumed.results] == measured
    assert "RUNNING" not in {t.state.name for t in resumed._study.get_trials()}
    assert not [config for _ in range(3) if (config := ask(resumed)[1].config) in measured]


def test_store_begin_puts_interrupted_default_first(tmp_path: Path) -> None:
    store = begun_store(tmp_path)
    trial, _ = ask(store)
    store.abandon(trial)
    origins = [ask(store)[1].origin for _ in range(5)]
    assert origins.count(TrialOrigin.DEFAULT) == 1
    resumed = begun_store(tmp_path)
    origins = [ask(resumed)[1].origin for _ in range(5)]
    assert origins.count(TrialOrigin.DEFAULT) == 1, "the driver was killed during the default"
    assert origins[0] is TrialOrigin.DEFAULT, "a reference comes first"


def test_store_opened_by_reader_changes_nothing(tmp_path: Path) -> None:
    store = begun_store(tmp_path)
    trial, request = ask(store)
    open_store(tmp_path)
    store.tell(trial, result_for(request, 5.0))
    assert store.results[0].sustained_rps == 5.0


def test_store_begin_puts_warm_start_before_recommended_points(tmp_path: Path) -> None:
    warm_start = [ServerConfig(workers=2, batch_size=size) for size in (48, 96)]
    store = open_store(tmp_path)
    store.begin(warm_start)
    origins = [measure(store, rps).origin for rps in (4.0, 20.0, 60.0, 30.0)]
    assert origins == [
        TrialOrigin.DEFAULT,
        TrialOrigin.WARM_START,
        TrialOrigin.WARM_START,
        TrialOrigin.GUIDE,
    ]
    best = finalists(store.results, 2)
    assert best == [SPACE.nearest_config(warm_start[1]), store.results[3].config]


def test_store_begin_moves_warm_start_into_space(tmp_path: Path) -> None:
    ranges = {
        "workers": Dimension("", 1, 2),
        "batch_size": 8,
        "netty_threads": Dimension("", choices=(1, 2)),
    }
    store = open_store(tmp_path, build_space(ranges, 2))
    warm_start = ServerConfig(
        workers=8, batch_size=64, netty_threads=2, properties={"io_ratio": "30"}
    )
    store.begin([warm_start, replace(warm_start, netty_threads=4)])
    measure(store, 10.0)
    request = measure(store, 10.0)
    assert request.origin is TrialOrigin.WARM_START
    config = request.config
    assert (config.workers, config.batch_size, config.netty_threads) == (2, 8, 2)
    assert config.properties == {}
    assert measure(store, 10.0).origin is TrialOrigin.GUIDE, "4 is not one of the choices"


def test_store_begin_enqueues_each_starting_point_once_after_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninterrupted = begun_store(tmp_path)
    store = open_store(tmp_path, file="killed.db")
    enqueue, enqueued = store._queue.enqueue, []

    def enqueue_two(*arguments: Any) -> None:
        if len(enqueued) == 2:
            raise KeyboardInterrupt
        enqueued.append(enqueue(*arguments))

    monkeypatch.setattr(store._queue, "enqueue", enqueue_two)
    with pytest.raises(KeyboardInterrupt):
        store.begin()
    resumed = open_store(tmp_path, file="killed.db")
    resumed.begin()
    resumed.begin()
    for _ in range(6):
        (_, ours), (_, theirs) = ask(resumed), ask(uninterrupted)
        assert (ours.number, ours.origin) == (theirs.number, theirs.origin)
        assert ours.origin is TrialOrigin.SAMPLED or ours.config == theirs.config


def test_store_restore_adds_results_to_new_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, baseline = build_space({}, 2), ServerConfig(workers=1, batch_size=7)
    before = begun_store(tmp_path, space, "first.db", baseline=baseline)
    for number in range(8):
        measure(before, None if number == 4 else 5.0 + number, host_fault=number == 4)
    after = open_store(tmp_path, space, "second.db", baseline=baseline)
    enqueue = after._queue.enqueue

    def enqueue_until_killed(*arguments: Any, **options: Any) -> None:
        enqueue(*arguments, **options)
        if len(after.results) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(after._queue, "enqueue", enqueue_until_killed)
    with pytest.raises(KeyboardInterrupt):
        after.restore(before.results)
    after = open_store(tmp_path, space, "second.db", baseline=baseline)
    assert len(after.results) == 3
    after.restore(before.results)
    after.restore(before.results)
    after.begin()
    assert after.results == before.results and after.best == before.best
    measured = {r.config.digest for r in before.results if not r.host_fault}
    _, request = ask(after)
    assert request.number == 8 and request.config.digest not in measured
    reopened = open_store(tmp_path, space, "second.db", baseline=baseline)
    assert [r.origin for r in reopened.results] == [r.origin for r in before.results]


def test_store_keeps_visits_by_plan_and_stage(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert store.confirmation_spent_s == 0.0 and store.visits("plan") == {}
    results = {
        stage: trial_result(1, 10.0, duration_s=duration_s)
        for stage, duration_s in (("0", 20.0), ("11", 22.5), ("verification", 60.0))
    }
    for stage, result in results.items():
        store.record_visit("plan", stage, result)
    store.record_visit("other", "0", results["0"])
    for reopened in (store, open_store(tmp_path)):
        assert reopened.confirmation_spent_s == 122.5
        assert reopened.visits("plan") == {
            stage: {result.config.digest: result} for stage, result in results.items()
        }


@pytest.fixture
def optuna_records() -> Iterator[list[logging.LogRecord]]:
    """The log records of Optuna during the test, at its default level INFO."""
    records: list[logging.LogRecord] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logger, handler = logging.getLogger("optuna"), Collector()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield records
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_store_silences_optuna_only_while_it_opens_study(
    tmp_path: Path, optuna_records: list[logging.LogRecord]
) -> None:
    for _ in ("created", "opened"):
        begun_store(tmp_path)
    StudyStore(SPACE, InMemoryStorage(), "in memory").begin()
    assert [record.getMessage() for record in optuna_records] == []
    assert logging.getLogger("optuna").level == logging.INFO, "the level is restored"
    optuna.create_study(study_name="of the caller")
    assert ["of the caller" in record.getMessage() for record in optuna_records] == [True]


def test_ask_skips_any_number_of_points_that_were_enqueued_twice(tmp_path: Path) -> None:
    store = begun_store(tmp_path)
    first = measure(store, 10.0)
    for _ in range(30):
        store._queue.enqueue(TrialOrigin.GUIDE, first.config, SPACE)
    requests = [measure(store, 10.0) for _ in range(6)]
    assert [request.number for request in requests] == [1, 2, 3, 4, 5, 6]
    assert requests[-1].origin is TrialOrigin.SAMPLED


def test_store_records_the_rate_predicted_before_each_trial(tmp_path: Path) -> None:
    store = begun_store(tmp_path)
    for rps in (4.0, 20.0, 60.0):
        measure(store, rps)
    first, *others = open_store(tmp_path).results
    assert first.predicted is None, "there is nothing to predict from before the first trial"
    assert all(result.predicted is not None for result in others)


def test_store_widens_ranges_on_whose_edge_the_best_is_and_reports_it(tmp_path: Path) -> None:
    space = build_space({}, cores=2)
    store = begun_store(tmp_path, space)
    while True:
        trial, request = ask(store)
        if request.origin is TrialOrigin.SAMPLED:
            break
        rate = 10.0 * (request.config.workers or 1) * (request.config.batch_size or 1)
        store.tell(trial, result_for(request, rate))
    assert space.dimensions[1].high == 128
    assert store.space.dimensions[1].high == 256, "the best recommended batch is 128"
    assert open_store(tmp_path, space).space == store.space
    assert any("range of batch_size was widened from 128 to 256" in n for n in store.notes)
    store.tell(trial, result_for(request, 7.0))
    for number in range(4):
        measure(store, 8.0 + number)
    assert sum(store.importance().values()) == pytest.approx(1.0)


def test_store_nominates_the_expected_best_when_the_search_ends(tmp_path: Path) -> None:
    store = begun_store(tmp_path)
    for rps in (4.0, 20.0, 60.0, 50.0):
        measure(store, rps)
    assert store.nominated == ()
    store.close_search("enough")
    assert len(store.nominated) == 4 and store.best is not None
    assert store.best.config.digest == store.nominated[0]
    assert open_store(tmp_path).nominated == store.nominated
    store.reopen_search()
    assert store.nominated == ()


def test_store_uses_an_earlier_run_only_in_this_run(tmp_path: Path) -> None:
    points = SPACE.draw(np.random.default_rng(0), 6)
    earlier = [trial_result(n, 10.0 + n, SPACE.config(p)) for n, p in enumerate(points)]
    store = open_store(tmp_path)
    store.begin([], earlier)
    for rps in (4.0, 20.0):
        measure(store, rps)
    again = open_store(tmp_path)
    observations = again.model._observations()
    assert [o.is_own for o in observations] == [True] * 2 + [False] * 6
    assert len(again.model.nominees(10)) == 2


def test_store_measures_references_thoroughly_and_screens_the_others(tmp_path: Path) -> None:
    store = begun_store(tmp_path, baseline=ServerConfig(workers=2))
    depths = [measure(store, 5.0).depth for _ in range(4)]
    assert depths == [Depth.FULL, Depth.FULL, Depth.SCREEN, Depth.SCREEN]


def test_store_records_pruned_and_failed_trials_as_such(tmp_path: Path) -> None:
    store = begun_store(tmp_path)
    for rps, state in ((4.0, TrialState.COMPLETE), (None, TrialState.PRUNED), (None, None)):
        trial, request = ask(store)
        result = result_for(request, rps, state=state, capacity_rps=30.0, cause="too slow\nlog")
        store.tell(trial, result)
    *_, pruned, failed = store._study.get_trials(
        states=(OptunaTrialState.COMPLETE, OptunaTrialState.PRUNED, OptunaTrialState.FAIL)
    )
    assert (pruned.state, failed.state) == (OptunaTrialState.PRUNED, OptunaTrialState.FAIL)
    assert pruned.values is None and failed.values is None
    assert pruned.user_attrs["reason"] == failed.user_attrs["reason"] == "too slow"


def test_store_begins_a_search_for_the_least_memory_with_one_worker(tmp_path: Path) -> None:
    store = begun_store(tmp_path, objective=Objective("footprint", 5.0, 6.5))
    default, first, second = (measure(store, 10.0) for _ in range(3))
    assert default.origin is TrialOrigin.DEFAULT
    assert (first.config.workers, second.config.workers) == (1, 1)


@pytest.mark.parametrize(
    ("objective", "direction", "values"),
    [
        (Objective(), "MAXIMIZE", [[10.0], [30.0], [20.0]]),
        (Objective("latency", 5.0, 5.0), "MINIMIZE", [[0.4], None, [0.2]]),
        (Objective("footprint", 5.0, 6.5), "MINIMIZE", [[300.0], [200.0], [100.0]]),
    ],
)
def test_store_records_what_the_run_optimizes(
    tmp_path: Path, objective: Objective, direction: str, values: list[list[float] | None]
) -> None:
    store = begun_store(tmp_path, objective=objective)
    for rps, p99_s, memory_mb in ((10.0, 0.4, 300), (30.0, 0.1, 200), (20.0, 0.2, 100)):
        is_served = rps < 30
        target = TargetRecord(5.0, 0.1, 0.1, p99_s, 0, is_served, "" if is_served else "timeouts")
        measure(store, rps, target=target, peak_memory_mb=memory_mb)
    trials = store._study.get_trials(states=(OptunaTrialState.COMPLETE, OptunaTrialState.PRUNED))
    assert store._study.direction.name == direction
    assert [trial.values for trial in trials] == values
    assert all("timeouts" in t.user_attrs["reason"] for t in trials if t.values is None)


def test_store_screens_references_that_a_confirmation_measures_again(tmp_path: Path) -> None:
    baseline = ServerConfig(workers=2)
    store = begun_store(tmp_path, baseline=baseline, screen_references=True)
    assert [measure(store, 5.0).depth for _ in range(3)] == [Depth.SCREEN] * 3


def test_importance_of_few_trials_warns_of_nothing(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    store = begun_store(tmp_path)
    for number in range(7):
        measure(store, 10.0 + number)
    assert store.importance() == {}, "the default has no values"
    for number in range(3):
        measure(store, 20.0 + number)
    importance = store.importance()
    assert sum(importance.values()) == pytest.approx(1.0)
    assert not [warning for warning in recwarn if "less than 2 trials" in str(warning.message)]


def test_importance_counts_a_baseline_outside_of_the_ranges(tmp_path: Path) -> None:
    store = begun_store(tmp_path, baseline=ServerConfig(workers=77, batch_size=3))
    for number in range(11):
        measure(store, 10.0 + number)
    assert sum(store.importance().values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("objective", "important"),
    [
        pytest.param(Objective(), "batch_size", id="rate"),
        pytest.param(Objective("latency", 5.0, 5.0), "workers", id="latency"),
        pytest.param(Objective("footprint", 5.0, 5.0), "mkl_threads", id="footprint"),
    ],
)
def test_importance_is_that_of_what_the_run_optimizes(
    tmp_path: Path, objective: Objective, important: str
) -> None:
    space = build_space(
        {
            "workers": Dimension("", 1, 4),
            "batch_size": Dimension("", 1, 64),
            "mkl_threads": Dimension("", 1, 4),
            "max_batch_delay_ms": Dimension("", 1, 100),
            "netty_threads": 1,
            "netty_client_threads": 1,
        },
        4,
    )
    store = StudyStore(space, tmp_path / "study.db", "study", objective=objective)
    results = []
    for number, point in enumerate(space.draw(np.random.default_rng(0), 20)):
        target = TargetRecord(5.0, 0.1, 0.1, 0.1 * point["workers"] ** 2, 0, True, "")
        memory_mb = 100 * 3 ** point["mkl_threads"]
        figures = {"target": target, "peak_memory_mb": memory_mb}
        rate_rps = 10.0 * point["batch_size"]
        results.append(trial_result(number, rate_rps, space.config(point), **figures))
    # The estimated capacities of pruned trials are no measured rates.
    for number, point in enumerate(space.draw(np.random.default_rng(1), 4), 20):
        pruned = {"state": TrialState.PRUNED, "capacity_rps": 1e6 * point["max_batch_delay_ms"]}
        results.append(trial_result(number, config=space.config(point), **pruned))
    store.restore(results)
    importance = store.importance()
    assert max(importance, key=importance.__getitem__) == important
    assert sum(importance.values()) == pytest.approx(1.0)
