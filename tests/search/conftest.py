"""A small run and its outcome, shared by the tests of reports and exports."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from search.confirmation.confirmation import Confirmation
from search.confirmation.plan import VERIFICATION, Plan
from search.confirmation.race import RaceRules
from search.spec.loading import load_spec
from search.study.driver import create_run
from search.study.outcome import Outcome
from search.study.reading import open_store, outcome_of
from search.study.run_folder import Run
from search.trial.result import TrialState
from serving.configuration.config import ServerConfig
from tests.results import result_for, visit_for
from tests.specifications import make_model_files, write_spec

SERVER_METRICS = {
    "queue_s": 0.8,
    "inference_s": 1.0,
    "mean_batch_fill": 1.0,
    "busy_workers": 1.9,
    "workers_ready": 2,
    "batch_capacity": 2,
    "facts": {"cores": 2},
}
PHASES_S = {"start": 8.4, "warm-up": 15.0, "verification": 20.0, "bracketing": 60.0, "stop": 5.9}
RATES = {"p50_s": 0.2, "p99_s": 0.5, "requests_without_failure": 1200, "success_bound": 0.9975}
BEST = ServerConfig(workers=2, batch_size=64, mkl_threads=1, jvm={"-Xmx": "2g"})


def make_run(folder: Path) -> Run:
    make_model_files(folder)
    return create_run(load_spec(write_spec(folder, output={"folder": str(folder / "runs")})))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path)


@pytest.fixture
def outcome(measured_files: Path, tmp_path: Path) -> Outcome:
    """Five trials: the default, two complete, one pruned, one failed; trial 3 is the best."""
    return copied_outcome(measured_files, tmp_path)


def copied_outcome(files: Path, folder: Path) -> Outcome:
    """Copy a folder with one run in `runs`, and read the copy."""
    shutil.copytree(files, folder, dirs_exist_ok=True)
    (run_folder,) = (folder / "runs").iterdir()
    spec = run_folder / "spec.yaml"
    spec.write_text(spec.read_text().replace(str(files), str(folder)))
    run = Run(run_folder)
    return outcome_of(run, run.spec(), open_store(run, run.spec()))


@pytest.fixture(scope="session")
def measured_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of `outcome`, which each test receives as a copy."""
    files = tmp_path_factory.mktemp("measured")
    run = make_run(files)
    store = open_store(run, run.spec())
    store.begin()
    for rps, config, state in (
        (5.0, None, TrialState.COMPLETE),
        (60.0, None, TrialState.COMPLETE),
        (None, None, TrialState.PRUNED),
        (250.0, BEST, TrialState.COMPLETE),
        (None, None, TrialState.FAILED),
    ):
        trial, request = store.ask() or pytest.fail("the study proposes no trial")
        figures = RATES if rps else {"cause": "worker died: worker 7 ended\nthe log"}
        result = result_for(
            replace(request, config=config or request.config),
            rps,
            state=state,
            capacity_rps=rps or 40.0,
            upper_rps=rps and rps * 1.04,
            **SERVER_METRICS if request.number < 4 else {},
            **figures,
            duration_s=109.3 if rps else 23.4,
            phases_s=PHASES_S if rps else dict(list(PHASES_S.items())[:2]),
        )
        run.append(store.tell(trial, result))
    store.end("all 5 trials were run")
    return files


@pytest.fixture
def confirmed(outcome: Outcome) -> Outcome:
    """The outcome with a confirmation of two rounds; the reference, visited in both, fails once."""
    assert outcome.reference is not None
    plan = Plan.of(outcome.results, outcome.reference, 2)
    rates = {0: (5.5, None), 3: (235.0, 245.0), 1: (50.0, 51.0)}
    stored = {
        str(number): {
            request.config.digest: visit_for(request, rates[request.number][number])
            for request in plan.requests
        }
        for number in range(2)
    }
    request = plan.verification(1, is_compared=False)
    verified = result_for(request, 232.8, capacity_rps=240.0, p99_s=0.4)
    stored[VERIFICATION] = {request.config.digest: verified}
    return replace(
        outcome, confirmation=Confirmation.read(stored, plan, RaceRules(rounds=2, far_behind=0.0))
    )
