"""A service over jobs whose processes are pretended: their folders are what a job leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp.test_utils import TestClient, TestServer

from search.service.app import Service, Settings
from search.service.job_queue import Queue, Status
from search.service.jobs import Job, JobState, JobStore
from search.spec.loading import parse_spec
from search.study.driver import create_run
from search.study.observer import EventObserver
from search.study.reading import open_store
from search.trial.result import TrialState
from tests.archives import make_archive
from tests.results import trial_result

TOKEN = "a-token-of-the-tests"


class Pretended:
    """A runner whose jobs do what the test says."""

    def __init__(self) -> None:
        self.submitted: list[str] = []
        self.statuses: dict[str, Status] = {}
        self.refuses: str | None = None

    def submit(self, job: Job) -> None:
        if self.refuses:
            raise RuntimeError(self.refuses)
        self.statuses[job.id] = Status.RUNNING
        self.submitted.append(job.submission_id)

    def status(self, job: Job) -> Status:
        return self.statuses.get(job.id, Status.UNKNOWN)

    def kill(self, job: Job) -> None:
        self.statuses[job.id] = Status.OVER

    def end(self, job: Job, state: JobState = JobState.FINISHED, reason: str = "done") -> None:
        job.end(state, reason)
        self.statuses[job.id] = Status.OVER


def begin_run(job: Job, rates: tuple[float, ...] = (5.0, 20.0)) -> None:
    """Leave what a job's process leaves that measured these rates."""
    data: dict[str, Any] = yaml.safe_load(job.spec_path.read_text())
    data["output"] = {"folder": str(job.folder / "runs")}
    run = create_run(parse_spec(data, job.folder))
    study = open_store(run, run.spec())
    study.begin()
    recorder = EventObserver(job.events.record)
    for rate in rates:
        asked = study.ask()
        assert asked is not None
        trial, request = asked
        recorder.started(request)
        recorder.phase(request.number, "bracketing", rate)
        result = trial_result(
            request.number,
            rate,
            request.config,
            request.origin,
            state=TrialState.COMPLETE,
            p99_s=0.1,
            duration_s=3.0,
        )
        study.tell(trial, result)
        run.append(result)
        recorder.finished(result, study.best)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    make_archive(folder)
    (folder / "requests.jsonl").write_text('{"body": {"a": 1}}\n')
    return folder


@pytest.fixture
def spec(root: Path) -> dict[str, Any]:
    return {
        "name": "small",
        "model": {"archive": "echo.mar", "requests": "requests.jsonl"},
        "search": {"trials": 4},
    }


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "service")


@pytest.fixture
def runner() -> Pretended:
    return Pretended()


@pytest.fixture
def queue(store: JobStore, runner: Pretended) -> Queue:
    return Queue(store, runner)


@pytest.fixture
async def client(store: JobStore, queue: Queue, root: Path) -> AsyncIterator[TestClient[Any, Any]]:
    service = Service(store, queue, Settings((root,), TOKEN, upload_bytes=1 << 20))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with TestClient(TestServer(service.app()), headers=headers) as found:
        yield found
