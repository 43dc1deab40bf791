"""The folders of jobs, damaged ones among them."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from search.errors import RecordError
from search.service.job_queue import JobQueue
from search.service.jobs import JobState, JobStore
from tests.search.service.conftest import (
    Client,
    FakeRunner,
    submit,
    wait_for_state,
    wait_until_running,
    write_run,
)

DAMAGED = ["", "{", "[]", "null", "{}", '{"state": "lost"}', "\0", '{"state": "queued", "x": 1}']
DAMAGED += [
    json.dumps({"name": 5, "state": "queued", "created_s": 1, "queued_s": 1}),
    json.dumps({"name": "a", "state": "queued", "created_s": 1, "queued_s": "x"}),
    json.dumps({"name": "a", "state": "running", "created_s": None, "queued_s": 1}),
]


@pytest.mark.parametrize("text", DAMAGED)
async def test_damaged_record_stalls_neither_the_queue_nor_the_list(
    client: Client, store: JobStore, runner: FakeRunner, spec: dict[str, Any], text: str
) -> None:
    damaged = await submit(client, store, spec)
    await wait_until_running(damaged, runner)
    (damaged.folder / "job.json").write_text(text)
    other = await submit(client, store, {**spec, "name": "other"})
    await wait_until_running(other, runner)
    listed = (await (await client.get("/v1/jobs")).json())["jobs"]
    states = {job["id"]: (job["state"], job["reason"] or "") for job in listed}
    assert states[other.id] == ("running", "")
    assert states[damaged.id][0] == "failed" and "job.json is damaged" in states[damaged.id][1]
    for method, path in (("DELETE", ""), ("POST", "/resume")):
        answer = await client.request(method, f"/v1/jobs/{damaged.id}{path}")
        assert answer.status == 409 and "restore it" in (await answer.json())["error"]
    with pytest.raises(RecordError):
        damaged.record()


@pytest.mark.parametrize("name", ["half of a pair \ud800", "\udcff", "zero \0"])
async def test_list_shows_a_job_whose_record_was_damaged_within_a_text(
    client: Client, store: JobStore, name: str
) -> None:
    job = store.add(store.new_folder(), name, {})
    answer = await client.get("/v1/jobs")
    assert answer.status == 200
    assert [(each["id"], each["name"]) for each in (await answer.json())["jobs"]] == [
        (job.id, name)
    ]


@pytest.mark.parametrize("text", [*DAMAGED[:5], '{"attempt": 1, "state": "x", "reason": ""}'])
async def test_damaged_end_is_the_loss_of_the_process(
    client: Client, store: JobStore, runner: FakeRunner, spec: dict[str, Any], text: str
) -> None:
    job = await submit(client, store, spec)
    await wait_until_running(job, runner)
    runner.end(job)
    (job.folder / "end.json").write_text(text)
    await wait_for_state(job, JobState.FAILED)
    assert "its process was lost" in (job.record().reason or "")


async def test_queue_continues_if_one_job_cannot_be_checked(
    store: JobStore, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (store.add(store.new_folder(), name, {}) for name in "ab")
    queue = JobQueue(store, runner, max_running=2)
    await queue.poll()
    status = runner.status
    monkeypatch.setattr(runner, "status", lambda job: status(job) if job.id == second.id else 1 / 0)
    runner.end(second)
    await queue.poll()
    assert second.record().state is JobState.FINISHED
    assert first.record().state is JobState.RUNNING, "it is checked again"


def test_job_store_syncs_a_job_before_it_is_one(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store.new_folder()
    (folder / "uploads" / "archive").mkdir(parents=True)
    (folder / "uploads" / "archive" / "a.mar").write_text("x")
    synced: list[str] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    store.add(folder, "a", {"name": "a"})
    ready = synced.index(".job.json.new")
    before = synced[:ready]
    assert {"a.mar", "archive", "uploads", ".spec.yaml.new", folder.name, "jobs"} <= set(before)
    assert folder.name in synced[ready:] and synced[-2:] == ["events.jsonl", folder.name]


def test_job_store_removes_incomplete_submissions(store: JobStore) -> None:
    job = store.add(store.new_folder(), "a", {})
    incomplete = store.new_folder()
    (incomplete / "uploads").mkdir()
    (incomplete.parent / "notes").mkdir()
    store.remove_incomplete()
    assert not incomplete.exists() and job.record() and (incomplete.parent / "notes").is_dir()


async def test_service_opens_no_study_in_the_event_loop(
    client: Client,
    store: JobStore,
    runner: FakeRunner,
    spec: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from search.study import store as study_store

    job = await submit(client, store, {**spec, "confirm": {"rounds": 2}})
    await wait_until_running(job, runner)
    write_run(job)
    runner.end(job)
    await wait_for_state(job, JobState.FINISHED)
    threads: list[str] = []
    opened = study_store.StudyStore.__init__

    def record(*arguments: Any, **options: Any) -> None:
        threads.append(threading.current_thread().name)
        opened(*arguments, **options)

    monkeypatch.setattr(study_store.StudyStore, "__init__", record)
    for path in ("", f"/{job.id}", f"/{job.id}/report", f"/{job.id}/best.tar.gz"):
        assert (await client.get(f"/v1/jobs{path}")).status == 200
    assert len(threads) >= 3 and {name.partition("_")[0] for name in threads} == {"views"}
