"""When the cluster of a service on this host ends; the real cluster is in tests/real."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from pathlib import Path

import pytest

from search.service import ray_jobs
from search.service.jobs import Job, JobState, JobStore, write_json
from search.service.local_cluster import CLUSTER_FILE, LOCK_FILE, is_needed, is_replaced, retire
from search.service.ray_jobs import LocalCluster
from serving.identity import is_alive, process_identity


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of a service that has ended."""
    (tmp_path / LOCK_FILE).touch()
    (tmp_path / CLUSTER_FILE).touch()
    return tmp_path


@pytest.fixture
def job(root: Path) -> Job:
    store = JobStore(root)
    return store.add(store.new_folder(), "a", {})


def test_cluster_is_needed_while_its_service_runs(root: Path) -> None:
    assert not is_needed(root)
    with (root / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert is_needed(root) and not retire(root)
    assert not is_needed(root) and (root / CLUSTER_FILE).exists()
    assert retire(root) and not (root / CLUSTER_FILE).exists()


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.STOPPING])
def test_cluster_is_needed_while_a_job_runs(root: Path, job: Job, state: JobState) -> None:
    assert not is_needed(root), "a queued job waits for the next service"
    job.change(state=state, attempt=1, started_s=time.time())
    assert is_needed(root), "its process is being started"
    job.change(started_s=time.time() - 600)
    assert not is_needed(root)
    job.begin()
    assert is_needed(root) and not retire(root)
    job.end(JobState.FINISHED, "done")
    assert not is_needed(root)


def test_job_with_a_process_id_of_another_process_is_not_active(root: Path, job: Job) -> None:
    job.change(state=JobState.RUNNING, attempt=1, started_s=time.time())
    path = job.folder / "process.json"
    for process in (f"{os.getpid()} 1", "4194399 1", process_identity(1) + "0"):
        write_json(path, {"attempt": 1, "process": process})
        assert not job.is_active(), process
    for text in ("", "{}", "[]", '{"attempt": 1}', '{"attempt": 1, "process": 5}'):
        path.write_text(text)
        assert job.is_active(), "it was started just now"
    write_json(path, {"attempt": 1, "process": process_identity(os.getpid())})
    assert job.is_active()
    job.end(JobState.STOPPED, "a user stopped it")
    assert not job.is_active()
    job.change(attempt=2)
    assert job.is_active(), "it was started just now"
    job.change(started_s=0.0)
    assert not job.is_active(), "the process of an earlier attempt has ended"


@pytest.mark.parametrize("text", ["{", "", '{"state": "running"}'])
def test_cluster_is_needed_while_a_job_with_a_damaged_record_runs(
    root: Path, job: Job, text: str
) -> None:
    job.change(state=JobState.RUNNING, attempt=1, started_s=0.0)
    job.begin()
    (job.folder / "job.json").write_text(text)
    assert is_needed(root) and not retire(root)
    assert JobStore(root).active_ids() == {job.id}
    write_json(job.folder / "process.json", {"attempt": 1, "process": "4194399 1"})
    assert not is_needed(root) and not JobStore(root).active_ids()


def test_cluster_is_replaced_if_the_service_names_another(root: Path, job: Job) -> None:
    for text in ("", "{", "[]"):
        (root / CLUSTER_FILE).write_text(text)
        assert not is_replaced(root), "it is being started"
    write_json(root / CLUSTER_FILE, {"process": process_identity(os.getpid()), "address": "x"})
    assert not is_replaced(root)
    write_json(root / CLUSTER_FILE, {"process": "4194399 1", "address": "x"})
    assert is_replaced(root)
    job.change(state=JobState.RUNNING, attempt=1, started_s=0.0)
    job.begin()
    assert not is_replaced(root), "a job may run on it"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "null",
        '{"process": "1"}',
        '{"process": 5, "address": "http://127.0.0.1:1"}',
        '{"process": "x y", "address": "http://127.0.0.1:1"}',
        '{"process": "-1 5", "address": "http://127.0.0.1:1"}',
        '{"process": "4194399 1", "address": []}',
        '{"process": null, "address": null}',
    ],
)
def test_find_takes_a_damaged_file_for_no_cluster(root: Path, text: str) -> None:
    (root / CLUSTER_FILE).write_text(text)
    assert LocalCluster.find(root) is None


@pytest.mark.parametrize("address", ["", "x", "http://127.0.0.1:0x50", "http://[", "file:///", 5])
def test_find_stops_a_cluster_that_does_not_answer(
    root: Path, address: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_jobs, "_FIND_S", 0.1)
    with subprocess.Popen(["sleep", "60"]) as process:
        written = {"process": process_identity(process.pid), "address": address}
        write_json(root / CLUSTER_FILE, written)
        assert LocalCluster.find(root) is None
        assert not is_alive(str(written["process"]))
