"""The webhooks of jobs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from search.service.job_queue import JobQueue, ProcessStatus, stop_job
from search.service.jobs import Job, JobState, JobStore
from search.service.notifications import Notifier
from search.sinks import webhook
from tests.search.service.conftest import FakeRunner, write_run
from tests.search.sinks.test_webhook import Receiver


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(webhook, "_WAITS_S", (0.0,))
    made = Receiver([200])
    yield made
    made.server.shutdown()
    made.server.server_close()


async def ended_job(queue: JobQueue, store: JobStore, runner: FakeRunner, spec: Any) -> Job:
    """Return a job that ran and whose process was lost, after its end was reported."""
    job = store.add(store.new_folder(), "small", spec)
    await queue.poll()
    write_run(job)
    runner.statuses[job.id] = ProcessStatus.OVER
    await queue.poll()
    for report in list(queue._reports):
        await report
    return job


async def test_queue_reports_a_job_whose_process_was_lost(
    store: JobStore, runner: FakeRunner, spec: Any, root: Path, tmp_path: Path, receiver: Receiver
) -> None:
    spec["model"] = {name: str(root / file) for name, file in spec["model"].items()}
    spec["notify"] = [{"url": receiver.url}]
    queue = JobQueue(store, runner, on_end=Notifier(tmp_path, frozenset()).report)
    job = await ended_job(queue, store, runner, spec)
    ((_, headers, body),) = receiver.requests
    data = json.loads(body)
    assert data["event"] == "failed" and data["job"] == job.id
    assert data["best_rps"] == 20.0 and data["ratio"] == 4.0
    assert "its process was lost" in data["reason"]
    secret = (tmp_path / "notify-secret").read_bytes()
    signed = webhook.signature(secret, headers["X-Servetune-Timestamp"], body)
    assert headers["X-Servetune-Signature"] == signed


@pytest.mark.parametrize(
    "hooks",
    [
        [{"url": "http://192.0.2.1/"}],
        [{"url": "gopher://127.0.0.1/"}],
        [5],
        {"url": "http://127.0.0.1/"},
        "http://127.0.0.1/",
    ],
)
async def test_queue_continues_if_a_webhook_cannot_be_sent(
    store: JobStore, runner: FakeRunner, spec: Any, root: Path, tmp_path: Path, hooks: Any
) -> None:
    """The file may have been changed after the submission."""
    spec["model"] = {name: str(root / file) for name, file in spec["model"].items()}
    queue = JobQueue(store, runner, on_end=Notifier(tmp_path, frozenset()).report)
    job = store.add(store.new_folder(), "small", {**spec, "notify": hooks})
    await queue.poll()
    runner.end(job)
    await queue.poll()
    for report in list(queue._reports):
        await report
    assert job.record().state is JobState.FINISHED


async def test_stopped_queued_job_can_be_reported(store: JobStore, runner: FakeRunner) -> None:
    reported: list[str] = []
    queue = JobQueue(store, runner, on_end=lambda job: reported.append(job.id))
    job = store.add(store.new_folder(), "small", {})
    stop_job(job)
    queue.report_end(job)
    for report in list(queue._reports):
        await report
    assert reported == [job.id] and job.record().state is JobState.STOPPED
