"""A small run and its outcome, shared by the tests of reports and exports."""

from dataclasses import replace
from pathlib import Path

import pytest

from search.spec.loading import load_spec
from search.study.confirm import Confirmation, Plan
from search.study.driver import create_run
from search.study.outcome import Outcome
from search.study.reading import open_store, outcome_of
from search.study.rounds import Rounds
from search.study.run_folder import Run
from search.trial.result import TrialState
from serving.config import ServerConfig
from tests.archives import make_archive
from tests.results import trial_result
from tests.specifications import write_spec

SERVER_METRICS = {
    "queue_s": 0.8,
    "inference_s": 1.0,
    "mean_batch_fill": 1.0,
    "busy_workers": 1.9,
    "workers_ready": 2,
    "batch_capacity": 2,
    "facts": {"cores": 2},
}


PHASES_S = {"start": 8.4, "warm-up": 15.0, "incumbent probe": 20.0, "bracketing": 60.0, "stop": 5.9}


RATES = {"p50_s": 0.2, "p99_s": 0.5, "requests_without_failure": 1200, "success_bound": 0.9975}


BEST = ServerConfig(workers=2, batch_size=64, mkl_threads=1, jvm={"-Xmx": "2g"})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    make_archive(tmp_path)
    (tmp_path / "requests.jsonl").write_text('{"body": {"a": 1}}\n')
    return create_run(load_spec(write_spec(tmp_path, output={"folder": str(tmp_path / "runs")})))


@pytest.fixture
def found(run: Run) -> Outcome:
    study = open_store(run, run.spec())
    study.begin()
    for rps, config, state in (
        (5.0, None, TrialState.COMPLETE),
        (60.0, None, TrialState.COMPLETE),
        (None, None, TrialState.PRUNED),
        (250.0, BEST, TrialState.COMPLETE),
        (None, None, TrialState.FAILED),
    ):
        trial, request = study.ask() or pytest.fail("nothing asked")
        more = RATES if rps else {"cause": "worker died: worker 7 ended\nthe log"}
        told = trial_result(
            request.number,
            rps,
            config or request.config,
            request.origin,
            state=state,
            capacity_rps=rps or 40.0,
            upper_rps=rps and rps * 1.04,
            **SERVER_METRICS if request.number < 4 else {},
            **more,
            duration_s=109.3 if rps else 23.4,
            phases_s=PHASES_S if rps else dict(list(PHASES_S.items())[:2]),
        )
        study.tell(trial, told)
        run.append(told)
    study.end("all 5 trials were run")
    return outcome_of(run, run.spec(), study)


@pytest.fixture
def confirmed(found: Outcome) -> Outcome:
    assert found.reference is not None
    plan = Plan.of(found.results, found.reference, 2)
    rates = {0: (5.0, None), 3: (230.0, 240.0)}
    columns = []
    for request in plan.requests:
        state = {
            rate: TrialState.COMPLETE if rate else TrialState.FAILED
            for rate in rates[request.number]
        }
        columns.append(
            tuple(
                trial_result(
                    request.number,
                    rate,
                    request.config,
                    request.origin,
                    state=state[rate],
                    comparison_p99_s=0.4,
                )
                for rate in rates[request.number]
            )
        )
    return replace(found, confirmation=Confirmation(plan, Rounds(tuple(columns))))
