"""The space, the results, the study and its searcher: no JVM, no cluster."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState as OptunaTrialState

from search.errors import RunError
from search.spec.space import Dimension, Space, build_space
from search.study.budget import trials_since_improvement
from search.study.diff import changes
from search.study.ranking import best_of, finalists, rate_of, sampler_value
from search.study.store import StudyStore
from search.study.tune_adapter import StudySearcher
from search.trial.host_lock import exclusive_host
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import TrialResult, TrialState
from servetune.errors import FailureKind
from serving.config import ServerConfig
from tests.results import result_for

SPACE = build_space({"job_queue_size": 1000}, cores=2)
SPACE_OF_ONE = ("max_batch_delay_ms", "netty_threads", "netty_client_threads", "mkl_threads")


def result(request: TrialRequest, rps: float | None = None, **more: Any) -> TrialResult:
    return result_for(request, rps, **more)


def open_store(folder: Path, space: Space = SPACE, **more: Any) -> StudyStore:
    study = StudyStore(space, f"sqlite:///{folder / 'study.db'}", "test", **more)
    study.begin()
    return study


@pytest.mark.parametrize(
    ("trial", "told"),
    [
        ({"rps": 120.0}, 120.0),
        ({"rps": None}, 0.0),
        ({"rps": None, "state": TrialState.PRUNED, "capacity_rps": 50.0, "width": 0.05}, 45.0),
        ({"rps": None, "state": TrialState.PRUNED, "capacity_rps": 300.0, "width": 0.05}, 190.0),
        ({"rps": None, "failure": FailureKind.GENERATOR_LIMITED, "capacity_rps": 50.0}, 45.0),
    ],
)
def test_the_sampler_always_hears_a_finite_value_on_one_scale(trial: dict, told: float) -> None:
    request = TrialRequest(1, TrialOrigin.SAMPLED, ServerConfig())
    assert sampler_value(result(request, **trial), 200.0, [0.8, 0.9, 1.0]) == pytest.approx(told)


def test_a_result_survives_being_written() -> None:
    config = ServerConfig(workers=2, environment={"A": "1"})
    request = TrialRequest(3, TrialOrigin.RECOMMENDED, config, 8.0)
    assert (
        TrialRequest.from_dict({**json.loads(json.dumps(request.to_dict())), "folder": "x"})
        == request
    )
    phases_s = {"start": 5.0, "stop": 2.5}
    written = result(request, 10.0, facts={"cores": 2}, p99_s=0.5, phases_s=phases_s)
    assert TrialResult.from_dict(written.to_dict()) == written
    assert TrialResult.from_dict({**written.to_dict(), "a_later_field": 1}) == written
    older = {key: value for key, value in written.to_dict().items() if key != "timing"}
    assert TrialResult.from_dict(older).timing.phases_s == {}


def test_first_the_default_then_the_users_then_the_guides(tmp_path: Path) -> None:
    users = ServerConfig(workers=77, batch_size=3)
    study = open_store(tmp_path, baseline=users)
    asked = []
    for rps in (4.0, 20.0, 60.0, 110.0, 90.0, 80.0, 70.0):
        trial, request = study.ask() or pytest.fail("nothing asked")
        asked.append(request)
        study.tell(trial, result(request, rps))
    kinds = [request.origin for request in asked]
    assert kinds == [
        TrialOrigin.DEFAULT,
        TrialOrigin.BASELINE,
        *[TrialOrigin.RECOMMENDED] * 4,
        TrialOrigin.SAMPLED,
    ]
    assert asked[0].config == ServerConfig()
    assert asked[1].config == users
    assert [request.incumbent_rps for request in asked] == [None, None, 20.0, 60.0, *[110.0] * 3]
    assert [request.number for request in asked] == list(range(7))


def test_a_baseline_outside_the_space_leaves_the_sampler_its_space(tmp_path: Path) -> None:
    space = build_space({"batch_size": Dimension("", choices=(8, 64))}, cores=2)
    study = open_store(tmp_path, space)
    for _ in range(14):
        trial, request = study.ask() or pytest.fail("nothing asked")
        study.tell(trial, result(request, float(request.config.batch_size or 1)))
    assert [r.config.batch_size for r in study.results][-1] in (8, 64)


def test_a_configuration_is_not_proposed_again(tmp_path: Path) -> None:
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
    study = open_store(tmp_path, space, incumbent_every=100)
    seen = []
    while (asked := study.ask()) is not None:
        trial, request = asked
        seen.append(request.config.digest)
        study.tell(trial, result(request, None if len(seen) % 2 else 5.0))
    assert len(seen) == len(set(seen))
    assert len(seen) == 1 + 4, "TorchServe's default, then the whole space"


def test_the_same_server_spelled_otherwise_is_not_measured_again(tmp_path: Path) -> None:
    space = build_space({}, 2)
    (guide, *_) = [space.config(point) for point in space.recommended_points()]
    spelled = replace(guide, netty_threads=None, netty_client_threads=None)
    assert space.identity(spelled) == space.identity(guide) and spelled.digest != guide.digest
    study = open_store(tmp_path, space, baseline=spelled)
    asked = []
    for _ in range(6):
        trial, request = study.ask() or pytest.fail("nothing asked")
        study.tell(trial, result(request, 10.0))
        asked.append(request.config)
    assert spelled in asked and guide not in asked


def test_the_hosts_fault_is_retried_once_and_the_configurations_never(tmp_path: Path) -> None:
    study = open_store(tmp_path)
    kinds = []
    for fault in (True, True, False):
        trial, request = study.ask() or pytest.fail("nothing asked")
        kinds.append((request.origin, request.config == ServerConfig()))
        study.tell(trial, result(request, cause="port in use", host_fault=fault))
    assert kinds[0] == (TrialOrigin.DEFAULT, True)
    told = [t.state.name for t in study._study.get_trials(deepcopy=False)][:2]
    assert told == ["FAIL", "FAIL"], "the sampler is not told of it"
    retried = [r for r in study.results if r.origin is TrialOrigin.DEFAULT]
    trial, request = study.ask() or pytest.fail("nothing asked")
    while request.origin is not TrialOrigin.SAMPLED:
        study.tell(trial, result(request, 10.0))
        retried += [study.results[-1]] if request.origin is TrialOrigin.DEFAULT else []
        trial, request = study.ask() or pytest.fail("nothing asked")
    assert len([r for r in study.results if r.origin is TrialOrigin.DEFAULT]) == 2


def test_the_incumbent_is_measured_again_every_few_trials(tmp_path: Path) -> None:
    study = open_store(tmp_path, incumbent_every=4)
    kinds = []
    for n in range(14):
        trial, request = study.ask() or pytest.fail("nothing asked")
        kinds.append(request.origin)
        rate = 100.0 if n == 2 else 60.0
        study.tell(trial, result(request, rate, capacity_rps=100.0))
    assert TrialOrigin.INCUMBENT in kinds
    best = study.results[2].config
    assert rate_of(study.results, best) is not None
    assert rate_of(study.results, best) < 100, "a lucky first measurement does not stay the best"


def test_a_study_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    study = open_store(tmp_path)
    told = []
    for n in range(3):
        trial, request = study.ask() or pytest.fail("nothing asked")
        told.append(request.config)
        study.tell(trial, result(request, 10.0 + n))
    study.ask()
    again = open_store(tmp_path)
    assert [r.config for r in again.results] == told
    states = {t.state.name for t in again._study.get_trials()}
    assert "RUNNING" not in states
    asked = [again.ask() or pytest.fail("nothing asked") for _ in range(3)]
    assert not [request.config for _, request in asked if request.config in told]


def test_an_interrupted_default_is_taken_up_again(tmp_path: Path) -> None:
    study = open_store(tmp_path)
    trial, _ = study.ask() or pytest.fail("nothing asked")
    study.abandon(trial)
    kinds = [(study.ask() or pytest.fail("nothing asked"))[1].origin for _ in range(5)]
    assert kinds.count(TrialOrigin.DEFAULT) == 1
    again = open_store(tmp_path)
    kinds = [(again.ask() or pytest.fail("nothing asked"))[1].origin for _ in range(5)]
    assert kinds.count(TrialOrigin.DEFAULT) == 1, "the driver was killed in it this time"
    assert kinds[0] is TrialOrigin.DEFAULT, "what everything is compared with comes first again"


def test_looking_on_changes_nothing(tmp_path: Path) -> None:
    study = open_store(tmp_path)
    trial, request = study.ask() or pytest.fail("nothing asked")
    StudyStore(SPACE, f"sqlite:///{tmp_path / 'study.db'}", "test")
    study.tell(trial, result(request, 5.0))
    assert study.results[0].sustained_rps == 5.0


def test_an_incumbent_that_fails_is_not_the_best_any_more(tmp_path: Path) -> None:
    lucky, steady = ServerConfig(workers=1), ServerConfig(workers=2)
    trials = [
        result(TrialRequest(0, TrialOrigin.SAMPLED, steady), 100.0),
        result(TrialRequest(1, TrialOrigin.SAMPLED, lucky), 110.0),
        result(TrialRequest(2, TrialOrigin.INCUMBENT, lucky)),
    ]
    best = best_of(trials)
    assert best is not None and best.config == steady


def test_the_best_has_the_highest_median() -> None:
    steady, lucky = ServerConfig(workers=1), ServerConfig(workers=2)
    trials = [
        result(TrialRequest(0, TrialOrigin.SAMPLED, steady), 100.0),
        result(TrialRequest(1, TrialOrigin.SAMPLED, lucky), 150.0),
        result(TrialRequest(2, TrialOrigin.INCUMBENT, lucky), 60.0),
        result(TrialRequest(3, TrialOrigin.INCUMBENT, lucky), 70.0),
    ]
    best = best_of(trials)
    assert best is not None and best.config == steady
    assert best_of([]) is None


def test_the_searcher_tells_the_study_first(tmp_path: Path) -> None:
    study = open_store(tmp_path)
    order: list[Any] = []
    may_start = iter([True, True, True, False])
    searcher = StudySearcher(
        study,
        lambda beside: next(may_start),
        lambda request: order.append(("started", request.number)),
        lambda told: order.append(("finished", told.number, len(study.results))),
        str,
    )
    config = searcher.suggest("a")
    record = result(TrialRequest(0, TrialOrigin.DEFAULT, ServerConfig()), 5.0).to_dict()
    searcher.on_trial_complete("a", {"record": json.dumps(record)})
    assert config["number"] == 0 and config["folder"] == "0"
    searcher.suggest("b")
    searcher.on_trial_complete("b", None, error=True)
    searcher.suggest("c")
    searcher.on_trial_complete("c", {"phase": "warm-up"})
    assert order == [
        ("started", 0),
        ("finished", 0, 1),
        ("started", 1),
        ("finished", 1, 2),
        ("started", 2),
    ]
    assert study.results[1].host_fault
    assert searcher.suggest("d") == "FINISHED"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "RUNNING" not in {t.state.name for t in study._study.get_trials()}


def test_trials_that_run_side_by_side_are_never_the_same(tmp_path: Path) -> None:
    study = open_store(tmp_path)
    started: list[TrialRequest] = []
    searcher = StudySearcher(
        study,
        lambda beside: len(study.results) + beside < 14,
        started.append,
        lambda told: None,
        str,
    )
    running = ["a", "b", "c", "d"]
    for name in running:
        assert isinstance(searcher.suggest(name), dict)
    for number in range(10):
        name, request = running.pop(0), started[number]
        rate = 10.0 * (request.config.workers or 1) * (request.config.batch_size or 1) ** 0.5
        record = result(request, rate).to_dict()
        searcher.on_trial_complete(name, {"record": json.dumps(record)})
        running.append(f"{name}+")
        assert isinstance(searcher.suggest(running[-1]), dict)
    assert searcher.suggest("none") is None, "what runs may have to be repeated"
    digests = [
        request.config.digest for request in started if request.origin is not TrialOrigin.INCUMBENT
    ]
    assert len(set(digests)) == len(digests) and len(started) == 14
    assert [request.origin for request in started].count(TrialOrigin.INCUMBENT) <= 1


def test_the_sampler_hears_of_a_missed_latency_limit(tmp_path: Path) -> None:
    study = open_store(tmp_path)
    for excess in (0.5, -0.2):
        trial, request = study.ask() or pytest.fail("nothing asked")
        study.tell(trial, result(request, None if excess > 0 else 10.0, p99_excess=excess))
    told = study._study.get_trials(states=(OptunaTrialState.COMPLETE,))
    assert [dict(trial.constraints) for trial in told] == [{"p99_s": 0.5}, {"p99_s": -0.2}]


def test_an_earlier_runs_best_come_before_the_guides_points(tmp_path: Path) -> None:
    warm = [ServerConfig(workers=2, batch_size=size) for size in (48, 96)]
    study = StudyStore(SPACE, f"sqlite:///{tmp_path / 'study.db'}", "test")
    study.begin(warm)
    kinds = []
    for rps in (4.0, 20.0, 60.0, 30.0):
        trial, request = study.ask() or pytest.fail("nothing asked")
        kinds.append(request.origin)
        study.tell(trial, result(request, rps))
    assert kinds == [
        TrialOrigin.DEFAULT,
        TrialOrigin.WARM_START,
        TrialOrigin.WARM_START,
        TrialOrigin.RECOMMENDED,
    ]
    assert finalists(study.results, 2) == [SPACE.nearest_config(warm[1]), study.results[3].config]


def test_a_study_that_was_killed_in_its_beginning_has_every_first_point_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_store(tmp_path)
    study = StudyStore(SPACE, f"sqlite:///{tmp_path / 'killed.db'}", "test")
    enqueue, done = study._enqueue, []

    def killed(*arguments: Any) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(enqueue(*arguments))

    monkeypatch.setattr(study, "_enqueue", killed)
    with pytest.raises(KeyboardInterrupt):
        study.begin()
    again = StudyStore(SPACE, f"sqlite:///{tmp_path / 'killed.db'}", "test")
    again.begin()
    again.begin()
    for _ in range(6):
        (_, ours), (_, theirs) = again.ask() or pytest.fail(""), whole.ask() or pytest.fail("")
        assert (ours.number, ours.origin) == (theirs.number, theirs.origin)
        assert ours.origin is TrialOrigin.SAMPLED or ours.config == theirs.config


@pytest.mark.parametrize(
    ("rates", "since"),
    [
        pytest.param([], 0, id="nothing yet"),
        pytest.param([10, 20, 30], 0, id="each is better"),
        pytest.param([10, 20, 20.5, 21, 19], 3, id="a little better is noise"),
        pytest.param([10, 20, None, 20.5, 40], 0, id="a failure is no improvement"),
        pytest.param([10, 20, 15, None], 2, id="what fails counts"),
    ],
)
def test_patience_counts_trials_that_are_no_better_beyond_the_noise(
    rates: list[float | None], since: int
) -> None:
    results = [
        result(TrialRequest(n, TrialOrigin.SAMPLED, ServerConfig(workers=n + 1)), rate)
        for n, rate in enumerate(rates)
    ]
    assert trials_since_improvement(results, 0.05) == since


def test_what_may_not_change_between_a_run_and_its_resumption_is_told() -> None:
    before = {"goal": {"width": 0.05}, "search": {"trials": 3}, "model": {"archive": "a"}}
    now = {"goal": {"width": 0.1}, "search": {"trials": 9, "seed": 1}, "model": {"archive": "a"}}
    assert changes(before, now) == {
        "goal.width": "0.05 → 0.1",
        "search.seed": "nothing → 1",
        "search.trials": "3 → 9",
    }
    assert changes(now, now) == {}


def test_two_measurements_on_one_host_are_refused() -> None:
    with exclusive_host(), pytest.raises(RunError, match="another servetune"), exclusive_host():
        pass
    with exclusive_host():
        pass


def test_a_guides_point_that_cannot_fit_is_left_out(tmp_path: Path) -> None:
    study = open_store(tmp_path, build_space({}, 4))
    asked = []
    for _ in range(4):
        trial, request = study.ask() or pytest.fail("nothing asked")
        asked.append((request.origin, request.config.batch_size))
        lost = request.origin is TrialOrigin.DEFAULT
        state, cause = (
            (TrialState.FAILED, FailureKind.MEMORY_BUDGET) if lost else (TrialState.COMPLETE, None)
        )
        study.tell(trial, result(request, None if lost else 5.0, state=state, failure=cause))
    # The default has four workers: the guide's points of as many are too large, its last has one.
    assert asked[:2] == [(TrialOrigin.DEFAULT, None), (TrialOrigin.RECOMMENDED, 32)]
    assert [kind for kind, _ in asked[2:]] == [TrialOrigin.SAMPLED] * 2
