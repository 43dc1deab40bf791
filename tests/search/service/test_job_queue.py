"""The queue of jobs."""

from __future__ import annotations

from typing import Any

from search.service.job_queue import JobQueue, ProcessStatus
from search.service.jobs import JobState, JobStore
from tests.search.service.conftest import (
    Client,
    FakeRunner,
    submit,
    wait_for_state,
    wait_until_running,
)


async def test_job_queue_fails_a_job_whose_process_was_lost(
    client: Client, store: JobStore, runner: FakeRunner, spec: dict[str, Any]
) -> None:
    job = await submit(client, store, spec)
    await wait_until_running(job, runner)
    runner.statuses[job.id] = ProcessStatus.OVER
    await wait_for_state(job, JobState.FAILED)
    reason = job.record().reason or ""
    assert "its process was lost" in reason and "resume the job to continue" in reason


async def test_job_queue_fails_a_job_that_ray_does_not_accept(
    client: Client, store: JobStore, runner: FakeRunner, spec: dict[str, Any]
) -> None:
    runner.submit_error = "no such cluster"
    job = await submit(client, store, spec)
    await wait_for_state(job, JobState.FAILED)
    assert job.record().reason == "Ray did not accept the job: no such cluster"


async def test_job_queue_continues_with_the_jobs_of_an_earlier_service(
    client: Client, store: JobStore, runner: FakeRunner, spec: dict[str, Any]
) -> None:
    running, waiting = [await submit(client, store, spec) for _ in range(2)]
    await wait_until_running(running, runner)
    await client.close()
    runner.end(running)
    queue = JobQueue(store, runner)
    await queue.poll()
    assert running.record().state is JobState.FINISHED
    assert waiting.record().state is JobState.RUNNING
    # As if the service was killed after it recorded the state and before the submission.
    del runner.statuses[waiting.id]
    await queue.poll()
    assert runner.submitted[-2:] == [waiting.submission_id] * 2
