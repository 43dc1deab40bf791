"""The process of a job."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import Mock

import pytest
import yaml

from search.errors import ClusterError, RecordError
from search.service import worker
from search.service.jobs import Job, JobState, JobStore
from serving.identity import is_alive


@pytest.fixture
def job(store: JobStore) -> Job:
    return store.add(store.new_folder(), "small", {})


@pytest.mark.parametrize(
    "error",
    [
        RecordError("the run cannot be written: No space left on device"),
        ClusterError("the cluster has no serving host left"),
    ],
)
def test_worker_records_expected_error_as_its_message(
    job: Job, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(worker, "run_job", Mock(side_effect=error))
    worker.main(job.folder)
    assert job.ended() == (JobState.FAILED, str(error))


def test_worker_records_unexpected_error_and_raises_it(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "run_job", Mock(side_effect=KeyError("x")))
    with pytest.raises(KeyError):
        worker.main(job.folder)
    assert job.ended() == (JobState.FAILED, "internal error: KeyError: 'x'")


def test_worker_records_stop_during_start(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.stop_path.touch()
    monkeypatch.setattr(worker, "_interrupt_when_asked", Mock())
    # Ray's handler of SIGTERM raises SystemExit.
    monkeypatch.setattr(worker, "run_job", Mock(side_effect=SystemExit(15)))
    with pytest.raises(SystemExit):
        worker.main(job.folder)
    assert job.ended() == (JobState.STOPPED, "a user stopped it")


def test_run_job_connects_only_to_the_cluster_of_the_service(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {
        "cluster": {"address": "192.0.2.1:6379", "heterogeneous_hosts": "keep"},
        "output": {"mlflow": "http://127.0.0.1:5000"},
    }
    job = store.add(store.new_folder(), "small", spec)
    parsed: list[dict[str, Any]] = []
    monkeypatch.setattr(worker, "parse_spec", lambda data, folder: parsed.append(data) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        worker.run_job(job)
    assert parsed[0]["cluster"] == {"address": "auto", "heterogeneous_hosts": "keep"}
    assert parsed[0]["output"] == {
        "mlflow": "http://127.0.0.1:5000",
        "folder": str(job.folder / "runs"),
    }
    assert yaml.safe_load(job.spec_path.read_text()) == spec


def test_main_records_its_process(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "run_job", Mock(side_effect=RecordError("full")))
    worker.main(job.folder)
    process = json.loads((job.folder / "process.json").read_text())
    assert is_alive(process["process"]) and process["attempt"] == 0
