"""When another trial may start, and why not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.spec.loading import load_spec
from search.spec.schema import StudySpec
from search.study.budget import Budget
from search.study.store import StudyStore
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import TrialState
from servetune.errors import FailureKind
from serving.config import ServerConfig
from tests.archives import make_archive
from tests.results import trial_result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_archive(tmp_path)
    (tmp_path / "requests.jsonl").write_text('{"body": {"a": 1}}\n')
    (tmp_path / "config.properties").write_text("default_workers_per_model=1\n")
    return tmp_path


def spec_of(folder: Path, **sections: Any) -> StudySpec:
    model = {"archive": "echo.mar", "requests": "requests.jsonl"}
    (folder / "study.yaml").write_text(yaml.safe_dump({"model": model, **sections}))
    return load_spec(folder / "study.yaml")


def study_of(folder: Path, spec: StudySpec) -> StudyStore:
    storage = f"sqlite:///{folder / 'study.db'}"
    study = StudyStore(spec.build_space(2), storage, "budget", baseline=spec.baseline())
    study.begin()
    return study


def tell(study: StudyStore, rate: float | None = None, **more: Any) -> TrialRequest:
    """Let one trial be measured."""
    trial, request = study.ask() or pytest.fail("nothing asked")
    state = TrialState.COMPLETE if rate else TrialState.FAILED
    study.tell(
        trial,
        trial_result(request.number, rate, request.config, request.origin, state=state, **more),
    )
    return request


def test_a_default_that_cannot_serve_ends_a_search(folder: Path) -> None:
    spec = spec_of(folder)
    study = study_of(folder, spec)
    budget = Budget(spec, study)
    tell(study, cause="model does not load: the handler raised")
    assert not budget.may_start() and budget.failed
    assert "the default configuration cannot serve: model does not load" in budget.reason


def test_a_default_that_is_too_large_says_nothing_of_what_is_smaller(folder: Path) -> None:
    spec = spec_of(folder)
    study = study_of(folder, spec)
    budget = Budget(spec, study)
    tell(study, failure=FailureKind.OUT_OF_MEMORY, cause="out of memory: a worker was killed")
    assert budget.may_start() and not budget.failed


def test_with_a_baseline_only_the_baseline_is_judged(folder: Path) -> None:
    spec = spec_of(folder, serving={"baseline": "config.properties"})
    study = study_of(folder, spec)
    budget = Budget(spec, study)
    assert tell(study, cause="model does not load").origin is TrialOrigin.DEFAULT
    assert budget.may_start()
    assert tell(study, cause="model does not load").origin is TrialOrigin.BASELINE
    assert not budget.may_start() and "the baseline configuration cannot serve" in budget.reason


def test_time_counts_on_when_a_run_goes_on(folder: Path) -> None:
    spec = spec_of(folder, search={"time_budget_s": 600}, confirm=None)
    study = study_of(folder, spec)
    tell(study, 10.0, duration_s=50.0)
    study.spend(500.0)
    assert Budget(spec, study).may_start(), "a hundred seconds are left"
    study.spend(580.0)
    budget = Budget(spec, study)
    assert (
        not budget.may_start() and budget.reason == "the time budget has no room for another trial"
    )


def test_a_search_that_is_over_stays_over(folder: Path) -> None:
    spec = spec_of(folder, search={"trials": 3}, confirm={"rounds": 2})
    study = study_of(folder, spec)
    tell(study, 10.0)
    study.close_search("the target was reached")
    study.end("the target was reached")
    again = study_of(folder, spec)
    assert again.ended is None, "it has begun again"
    budget = Budget(spec, again)
    assert not budget.may_start() and budget.reason == "the target was reached"
    again.close_search(None)
    assert Budget(spec, again).may_start()


def test_a_hosts_fault_does_not_count_as_a_trial_but_does_not_go_on_for_ever(
    folder: Path,
) -> None:
    spec = spec_of(folder, search={"trials": 2})
    study = study_of(folder, spec)
    tell(study, 10.0)
    tell(study, cause="trial process lost", host_fault=True)
    budget = Budget(spec, study)
    assert budget.may_start()
    for _ in range(11):
        tell(study, cause="trial process lost", host_fault=True)
    assert not budget.may_start() and budget.reason == "all 2 trials were run"


def test_a_warm_start_keeps_to_the_space(folder: Path) -> None:
    spec = spec_of(
        folder, space={"workers": {"low": 1, "high": 2}, "batch_size": 8, "netty_threads": [1, 2]}
    )
    study = StudyStore(spec.build_space(2), f"sqlite:///{folder / 'warm.db'}", "warm")
    warm = ServerConfig(workers=8, batch_size=64, netty_threads=2, properties={"io_ratio": "30"})
    study.begin([warm, replace(warm, netty_threads=4)])
    tell(study, 10.0)
    request = tell(study, 10.0)
    assert request.origin is TrialOrigin.WARM_START
    config = request.config
    assert (config.workers, config.batch_size, config.netty_threads) == (2, 8, 2)
    assert config.properties == {}
    assert tell(study, 10.0).origin is TrialOrigin.RECOMMENDED, "nothing corresponds to the second"
