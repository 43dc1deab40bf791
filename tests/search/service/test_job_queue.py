"""The queue of jobs."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.service import jobs
from search.service.job_queue import (
    MAX_SHOWN,
    JobQueue,
    ProcessStatus,
    requeue_job,
    stop_job,
)
from search.service.jobs import Job, JobRecord, JobState, JobStore
from tests.search.service.conftest import (
    Client,
    FakeRunner,
    submit,
    wait_for_state,
    wait_until_running,
)


async def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, at most a minute."""
    for _ in range(1200):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the condition does not hold")


def refuse_writes(monkeypatch: pytest.MonkeyPatch, job: Job) -> None:
    """Let the disk be full for the records of a job."""
    write = jobs.write_json

    def refuse(path: Path, data: Any) -> None:
        if path.parent == job.folder:
            raise OSError(28, "No space left on device")
        write(path, data)

    monkeypatch.setattr(jobs, "write_json", refuse)


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


async def test_job_queue_starts_the_next_job_if_one_cannot_be_written(
    store: JobStore, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (store.add(store.new_folder(), name, {}) for name in "ab")
    queue = JobQueue(store, runner)
    with monkeypatch.context() as patch:
        refuse_writes(patch, first)
        polling = asyncio.ensure_future(queue.run())
        await wait_until_running(second, runner)
        await wait_for(lambda: queue.problem is not None)
    assert f"{first.id} could not be started: [Errno 28] No space" in str(queue.problem)
    assert first.record().state is JobState.QUEUED
    runner.end(second)
    queue.wake()
    await wait_until_running(first, runner)
    await wait_for(lambda: queue.problem is None)
    polling.cancel()


async def test_job_queue_names_a_job_that_cannot_be_started_while_another_runs(
    store: JobStore, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (store.add(store.new_folder(), name, {}) for name in "ab")
    queue = JobQueue(store, runner)
    with monkeypatch.context() as patch:
        refuse_writes(patch, first)
        for _ in range(3):
            await queue.poll()
            assert list(queue._unstarted) == [first.id], "it still waits for that reason"
    assert second.record().state is JobState.RUNNING
    stop_job(first)
    await queue.poll()
    assert queue._unstarted == {}


async def test_job_queue_submits_nothing_beside_the_process_of_a_job(
    store: JobStore, runner: FakeRunner
) -> None:
    """As if the service found no record of its cluster, and started another one."""
    job = store.add(store.new_folder(), "a", {})
    queue = JobQueue(store, runner)
    await queue.poll()
    job.begin()
    runner.statuses.clear()
    await queue.poll()
    assert runner.submitted == [job.submission_id]
    jobs.write_json(job.folder / "process.json", {"attempt": 1, "process": "4194399 1"})
    job.end(JobState.FINISHED, "done")
    await queue.poll()
    assert job.record().state is JobState.FINISHED and len(runner.submitted) == 1


async def test_job_queue_starts_a_restored_job_with_a_new_attempt(
    store: JobStore, runner: FakeRunner
) -> None:
    job = store.add(store.new_folder(), "a", {})
    queued = (job.folder / "job.json").read_text()
    queue = JobQueue(store, runner)
    await queue.poll()
    job.begin()
    (job.folder / "job.json").write_text(queued)
    stop_job(job)
    assert job.record().state is JobState.STOPPING and job.stop_path.exists(), "its process runs"
    job.end(JobState.STOPPED, "a user stopped it")
    jobs.write_json(job.folder / "process.json", {"attempt": 1, "process": "4194399 1"})
    runner.statuses.clear()
    await queue.poll()
    assert job.record().state is JobState.STOPPED and not job.stop_path.exists()
    requeue_job(job)
    await queue.poll()
    assert runner.submitted == [f"servetune-{job.id}-1", f"servetune-{job.id}-2"]


async def test_job_queue_keeps_the_request_to_stop_until_the_end_is_written(
    store: JobStore, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = store.add(store.new_folder(), "a", {})
    queue = JobQueue(store, runner)
    await queue.poll()
    stop_job(job)
    runner.statuses[job.id] = ProcessStatus.OVER
    with monkeypatch.context() as patch:
        refuse_writes(patch, job)
        await queue.poll()
    await queue.poll()
    assert (job.record().state, job.record().reason) == (JobState.STOPPED, "a user stopped it")


async def test_job_queue_starts_no_job_that_was_stopped_meanwhile(
    store: JobStore, runner: FakeRunner
) -> None:
    first, second = (store.add(store.new_folder(), name, {}) for name in "ab")
    submit = runner.submit

    def stop_the_other(job: Job) -> None:
        submit(job)
        if job.id == first.id:
            stop_job(second)

    runner.submit = stop_the_other  # type: ignore[method-assign]
    await JobQueue(store, runner, max_running=2).poll()
    assert second.record().state is JobState.STOPPED and len(runner.submitted) == 1


async def test_job_queue_counts_a_process_whose_record_is_damaged(
    store: JobStore, runner: FakeRunner
) -> None:
    first, second = (store.add(store.new_folder(), name, {}) for name in "ab")
    queued = (first.folder / "job.json").read_text()
    queue = JobQueue(store, runner)
    await queue.poll()
    first.begin()
    for text in ("{", queued):  # Damaged, and restored from a copy.
        (first.folder / "job.json").write_text(text)
        await queue.poll()
        assert second.record().state is JobState.QUEUED
    assert runner.submitted == [f"servetune-{first.id}-1"]
    jobs.write_json(first.folder / "process.json", {"attempt": 1, "process": "4194399 1"})
    (first.folder / "job.json").write_text("{")
    await queue.poll()
    assert second.record().state is JobState.RUNNING


async def test_job_queue_reports_an_end_whose_event_cannot_be_written(
    store: JobStore, runner: FakeRunner
) -> None:
    ended: list[str] = []
    job = store.add(store.new_folder(), "a", {})
    queue = JobQueue(store, runner, on_end=lambda job: ended.append(job.id))
    await queue.poll()
    job.events.path.unlink()
    job.events.path.mkdir()
    runner.end(job)
    for _ in range(3):
        await queue.poll()
    await wait_for(lambda: ended == [job.id])
    assert job.record().state is JobState.FINISHED


def test_line_lists_the_jobs_before_each(store: JobStore) -> None:
    jobs = [store.add(store.new_folder(), str(n), {}) for n in range(30)]
    queue = JobQueue(store, FakeRunner())
    jobs[3].change(state=JobState.RUNNING)
    jobs[4].change(state=JobState.FINISHED)
    jobs[5].change(queued_s=0.0)
    line = queue.line()
    assert [line.positions.get(jobs[n].id) for n in (0, 3, 4, 5, 29)] == [2, None, None, 1, 28]
    before = [[job.id for job, _ in line.before(jobs[n])] for n in (1, 3, 29)]
    assert before[0] == [jobs[n].id for n in (3, 5, 0)] and before[1] == []
    assert len(before[2]) == 1 + MAX_SHOWN


async def test_list_of_many_queued_jobs_reads_each_record_few_times(
    client: Client, store: JobStore, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service reads with one thread: a list that takes long stops it."""
    jobs = [store.add(store.new_folder(), str(n), {"name": str(n)}) for n in range(40)]
    await wait_until_running(jobs[0], runner)
    reads: Counter[str] = Counter()
    record = Job.record

    def count(job: Job) -> JobRecord:
        if threading.current_thread().name.startswith("views"):
            reads[job.id] += 1
        return record(job)

    monkeypatch.setattr(Job, "record", count)
    listed = (await (await client.get("/v1/jobs")).json())["jobs"]
    assert len(listed) == 40 and len(reads) == 40 and max(reads.values()) < 5
