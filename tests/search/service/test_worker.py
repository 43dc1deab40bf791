"""The process of a job."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from search.errors import ClusterError, RecordError
from search.service import worker
from search.service.jobs import Job, JobState, JobStore


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
