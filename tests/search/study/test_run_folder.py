"""A driver that is killed at any instant, and goes on: the study and trials.jsonl tell all."""

import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from search.errors import RunError
from search.spec.space import build_space
from search.study.run_folder import Results, Run
from search.study.store import StudyStore
from search.trial.request import TrialOrigin
from search.trial.result import TrialState
from serving.config import ServerConfig
from tests.results import trial_result

TRIALS, KILLS = 14, 10
BASELINE = ServerConfig(workers=1, batch_size=7)
#: What a run does, with a trial that takes 50 ms.
DRIVER = """
import json, sys, time
from pathlib import Path
from search.spec.space import build_space
from search.study.run_folder import Run
from search.study.store import StudyStore
from search.study.tune_adapter import StudySearcher
from search.trial.request import TrialRequest
from tests.results import result_for

folder = Path(sys.argv[1])
run = Run(folder)
study = StudyStore(build_space({}, 2), f"sqlite:///{folder / 'study.db'}", "killed")
print("opened", flush=True)
study.begin()
run.rebuild(study.results)
searcher = StudySearcher(
    study, lambda beside: len(study.results) < int(sys.argv[2]), print, run.append, str
)
while isinstance(config := searcher.suggest("x"), dict):
    request = TrialRequest.from_dict(config)
    time.sleep(0.05)
    result = result_for(request, 10.0 * (request.config.workers or 1))
    searcher.on_trial_complete("x", {"record": json.dumps(result.to_dict())})
    print("told", request.number, flush=True)
"""


@pytest.mark.timeout(180)
def test_a_driver_that_is_killed_at_random_instants_loses_nothing(tmp_path: Path) -> None:
    chance, told = random.Random(0), set()
    for kill in range(KILLS + 1):
        with subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(tmp_path), str(TRIALS)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        ) as driver:
            assert driver.stdout is not None
            assert driver.stdout.readline() == "opened\n"
            if kill < KILLS:
                time.sleep(chance.uniform(0, 0.5))
                driver.kill()
            told |= {line for line in driver.stdout.read().splitlines() if line.startswith("told")}
    assert driver.returncode == 0
    study = StudyStore(build_space({}, 2), f"sqlite:///{tmp_path / 'study.db'}", "killed")
    results = study.results
    assert len(results) == TRIALS
    assert [r.to_dict() for r in Run(tmp_path).results()] == [r.to_dict() for r in results]
    assert {f"told {r.number}" for r in results} >= told
    assert len({r.number for r in results}) == TRIALS
    once = [r.config.digest for r in results if r.origin is not TrialOrigin.INCUMBENT]
    assert len(set(once)) == len(once), "nothing is measured twice"
    assert [r.origin for r in results].count(TrialOrigin.DEFAULT) == 1
    assert [r.origin for r in results].count(TrialOrigin.RECOMMENDED) == 4
    states = [t.state.name for t in study._study.get_trials()]
    assert "RUNNING" not in states and "WAITING" not in states


def test_results_that_grow_are_read_on(tmp_path: Path) -> None:
    run = Run(tmp_path)
    first, second, third = (
        trial_result(number, 1.0, ServerConfig(), TrialOrigin.SAMPLED, state=TrialState.COMPLETE)
        for number in range(3)
    )
    results = Results(run)
    assert results.read() == []
    run.append(second)
    run.append(first)
    assert results.read() == [first, second]
    path = tmp_path / "trials.jsonl"
    run.append(third)
    whole = path.read_text()
    path.write_text(whole[:-5])
    assert results.read() == [first, second], "a line that is being written does not count yet"
    path.write_text(whole)
    assert results.read() == [first, second, third] == run.results()
    run.rebuild([first])
    assert results.read() == [first], "written anew, it is read anew"


def test_a_study_that_is_gone_is_taken_up_from_the_runs_own_lines(tmp_path: Path) -> None:
    space = build_space({}, 2)

    def opened(name: str) -> StudyStore:
        return StudyStore(space, f"sqlite:///{tmp_path / name}", "gone", baseline=BASELINE)

    before = opened("first.db")
    before.begin()
    for number in range(8):
        trial, request = before.ask() or pytest.fail("nothing asked")
        state = TrialState.FAILED if number == 4 else TrialState.COMPLETE
        rate = None if number == 4 else 5.0 + number
        result = trial_result(request.number, rate, request.config, request.origin, state=state)
        before.tell(trial, replace(result, host_fault=number == 4))
    after = opened("second.db")
    enqueue = after._enqueue

    def killed(*arguments: Any, **more: Any) -> None:
        enqueue(*arguments, **more)
        if len(after.results) == 3:
            raise KeyboardInterrupt

    with mock.patch.object(after, "_enqueue", killed), pytest.raises(KeyboardInterrupt):
        after.restore(before.results)
    after = opened("second.db")
    assert len(after.results) == 3
    after.restore(before.results)
    after.restore(before.results)
    after.begin()
    assert after.results == before.results and after.best == before.best
    known = {r.config.digest for r in before.results if not r.host_fault}
    _, request = after.ask() or pytest.fail("nothing asked")
    assert request.number == 8 and request.config.digest not in known
    assert [r.origin for r in opened("second.db").results] == [r.origin for r in before.results]


@pytest.mark.parametrize("text", ["", "- 1\n", "a: [", "\0"])
def test_a_specification_that_is_damaged_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(RunError, match=r"spec\.yaml"):
        Run.open(tmp_path).spec()
