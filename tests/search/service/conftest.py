"""A service whose jobs have no processes: a fake runner, and folders as jobs leave them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp.test_utils import TestClient, TestServer

from search.service.app import Service
from search.service.job_queue import JobQueue, ProcessStatus
from search.service.jobs import Job, JobState, JobStore
from search.service.options import ServiceOptions
from search.spec.loading import parse_spec
from search.study.driver import create_run
from search.study.observer import EventObserver
from search.study.progress import Progress
from search.study.reading import open_store
from search.trial.result import TrialState
from tests.results import result_for
from tests.specifications import MODEL, make_model_files

TOKEN = "a-token-of-the-tests"
Client = TestClient[Any, Any]


class FakeRunner:
    """A `JobRunner` without processes; the test decides when a job ends."""

    def __init__(self) -> None:
        self.submitted: list[str] = []
        self.statuses: dict[str, ProcessStatus] = {}
        self.submit_error: str | None = None

    def submit(self, job: Job) -> None:
        if self.submit_error:
            raise RuntimeError(self.submit_error)
        self.statuses[job.id] = ProcessStatus.RUNNING
        self.submitted.append(job.submission_id)

    def status(self, job: Job) -> ProcessStatus:
        return self.statuses.get(job.id, ProcessStatus.UNKNOWN)

    def kill(self, job: Job) -> None:
        self.statuses[job.id] = ProcessStatus.OVER

    def end(self, job: Job, state: JobState = JobState.FINISHED, reason: str = "done") -> None:
        """Let the job's process record its end and exit."""
        job.end(state, reason)
        self.statuses[job.id] = ProcessStatus.OVER


def write_run(job: Job, rates: tuple[float, ...] = (5.0, 20.0)) -> None:
    """Write the run and the events of a job that measured these rates."""
    data: dict[str, Any] = yaml.safe_load(job.spec_path.read_text())
    data["output"] = {"folder": str(job.folder / "runs")}
    run = create_run(parse_spec(data, job.folder))
    store = open_store(run, run.spec())
    store.begin()
    observer = EventObserver(job.events.record)
    for rate in rates:
        trial, request = store.ask() or pytest.fail("the study proposes no trial")
        observer.started(request)
        observer.progress(Progress("trying larger batches", "5 rps", 90.0, 0.4))
        observer.phase(request.number, "bracketing", rate)
        result = result_for(request, rate, state=TrialState.COMPLETE, p99_s=0.1, duration_s=3.0)
        store.tell(trial, result)
        run.append(result)
        observer.finished(result, store.best)


async def submit(client: Client, store: JobStore, spec: dict[str, Any]) -> Job:
    """Submit a job through the API."""
    answer = await client.post("/v1/jobs", data=yaml.safe_dump(spec))
    assert answer.status == 201, await answer.text()
    view: dict[str, Any] = await answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{view['id']}"
    assert view["name"] == spec["name"] and view["best"] is None
    job = store.get(view["id"])
    assert job is not None
    return job


async def wait_for_state(job: Job, state: JobState) -> None:
    """Wait until the job has this state, at most a minute."""
    for _ in range(1200):
        if job.record().state is state:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"the job is {job.record().state}, not {state}")


async def wait_until_running(job: Job, runner: FakeRunner) -> None:
    """Wait until the job's current attempt was submitted, which follows its state."""
    await wait_for_state(job, JobState.RUNNING)
    for _ in range(1200):
        if job.submission_id in runner.submitted:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"the job was not submitted: {runner.submitted}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder that specifications may name files in."""
    return make_model_files(tmp_path / "root")


@pytest.fixture
def spec(root: Path) -> dict[str, Any]:
    return {"name": "small", "model": dict(MODEL), "search": {"trials": 4}}


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "service")


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner()


@pytest.fixture
def queue(store: JobStore, runner: FakeRunner) -> JobQueue:
    return JobQueue(store, runner)


@pytest.fixture
async def client(store: JobStore, queue: JobQueue, root: Path) -> AsyncIterator[Client]:
    service = Service(store, queue, ServiceOptions((root,), TOKEN, max_request_bytes=1 << 20))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with TestClient(TestServer(service.app()), headers=headers) as client:
        yield client
