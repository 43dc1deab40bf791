"""The folders of jobs: specification, events, result. Only reads and writes files."""

from __future__ import annotations

import enum
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from search.atomic_files import sync_folder, sync_tree, write_atomically
from search.errors import RecordError, first_line
from search.service.events import EventLog
from search.study.run_folder import Run
from serving.identity import is_alive, process_identity

_LOG = logging.getLogger(__name__)
#: Seconds within which Ray starts the process of a job.
_START_LIMIT_S = 120.0
_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")


class JobState(enum.StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    STOPPING = "stopping"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        """Whether the job stays as it is until it is resumed."""
        return self in (JobState.FINISHED, JobState.STOPPED, JobState.FAILED)


#: The states of a job whose process runs, or will soon.
ACTIVE = (JobState.RUNNING, JobState.STOPPING)


@dataclass(frozen=True)
class JobRecord:
    """The record of a job.

    Attributes:
        name: the name of the specification.
        reason: why the job ended.
        created_s, queued_s, started_s, ended_s: seconds since 1970; queued_s orders the queue.
        attempt: number of submissions to Ray.
    """

    name: str
    state: JobState
    created_s: float
    queued_s: float
    started_s: float | None = None
    ended_s: float | None = None
    reason: str | None = None
    attempt: int = 0


class Job:
    """The folder of a job: job.json, spec.yaml, uploads/, events.jsonl, runs/, stop, end.json."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.id = folder.name
        self.events = EventLog(folder / "events.jsonl")

    @property
    def spec_path(self) -> Path:
        """The submitted specification."""
        return self.folder / "spec.yaml"

    @property
    def stop_path(self) -> Path:
        """A file that exists while the job is asked to stop."""
        return self.folder / "stop"

    @property
    def submission_id(self) -> str:
        """The name of the current attempt in Ray."""
        return f"servetune-{self.id}-{self.record().attempt}"

    def record(self) -> JobRecord:
        """Return the job's record.

        Raises:
            RecordError: job.json cannot be read.
        """
        path = self.folder / "job.json"
        try:
            data = json.loads(path.read_text())
            record = JobRecord(**{**data, "state": JobState(data["state"])})
            if not (isinstance(record.name, str) and _are_numbers(record)):
                raise ValueError("a value has the wrong type")
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise RecordError(
                f"{path} is damaged: {first_line(error)}; restore it, or remove the job's folder"
            ) from None
        return record

    def change(self, **changes: Any) -> JobRecord:
        """Change fields of the record; a new state is also written as an event."""
        old = self.record()
        new = replace(old, **changes)
        write_json(self.folder / "job.json", asdict(new))
        if new.state is not old.state:
            self.log_state(new)
        return new

    def log_state(self, record: JobRecord) -> None:
        """Append the job's state to its events; an error is only logged: the record counts."""
        try:
            self.events.append("state", state=record.state, reason=record.reason)
        except OSError as error:
            _LOG.warning("job %s: the event of its new state is lost: %s", self.id, error)

    def run(self) -> Run | None:
        """Return the job's run; None if it has not started."""
        paths = sorted(self.folder.glob("runs/*/spec.yaml"))
        return Run(paths[0].parent) if paths else None

    def begin(self) -> None:
        """Record the process of the current attempt; called by this process."""
        process = {"attempt": self.record().attempt, "process": process_identity(os.getpid())}
        write_json(self.folder / "process.json", process)

    def has_process(self) -> bool:
        """Return whether the process of the last attempt is alive on this host."""
        return self._last_process()[1]

    def next_attempt(self) -> int:
        """Return the number of the next attempt; job.json may be older than the last one."""
        return max(self.record().attempt, self._last_process()[0] or 0) + 1

    def is_active(self) -> bool:
        """Return whether a process of this host runs the job, or will soon.

        A process counts even if job.json is damaged, or was restored from a copy.
        """
        attempt, is_running = self._last_process()
        if is_running and (self._last_end() or (None,))[0] != attempt:
            return True
        try:
            record = self.record()
        except RecordError:
            return False
        if record.state not in ACTIVE or record.attempt == attempt or self.ended():
            return False
        return time.time() - (record.started_s or 0.0) < _START_LIMIT_S

    def _last_process(self) -> tuple[int | None, bool]:
        """Return the attempt of the last process, None if unknown, and whether it is alive."""
        try:
            process = json.loads((self.folder / "process.json").read_text())
            return int(process["attempt"]), is_alive(process["process"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None, False

    def end(self, state: JobState, reason: str) -> None:
        """Record how the attempt of `begin` ended; called by the job's process."""
        attempt, _ = self._last_process()
        attempt = self.record().attempt if attempt is None else attempt
        end = {"attempt": attempt, "state": state, "reason": reason}
        write_json(self.folder / "end.json", end)

    def ended(self) -> tuple[JobState, str] | None:
        """Return how the current attempt ended; None if its process recorded nothing."""
        end = self._last_end()
        return end[1] if end is not None and end[0] == self.record().attempt else None

    def _last_end(self) -> tuple[Any, tuple[JobState, str]] | None:
        """Return the last attempt that recorded its end, and how it ended."""
        try:
            end = json.loads((self.folder / "end.json").read_text())
            return end["attempt"], (JobState(end["state"]), str(end["reason"]))
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None


def _are_numbers(record: JobRecord) -> bool:
    required = (record.created_s, record.queued_s, record.attempt)
    optional = (record.started_s, record.ended_s)
    values = [*required, *(value for value in optional if value is not None)]
    return all(isinstance(value, int | float) for value in values)


class JobStore:
    """The jobs in a folder."""

    def __init__(self, folder: Path):
        self._folder = folder / "jobs"
        #: The folder of the bundled model, which is built when it is first asked for.
        self.demo_folder = folder / "demo"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._reported: set[str] = set()

    def new_folder(self) -> Path:
        """Create a folder for a job; `add` turns it into a job."""
        folder = self._folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        folder.mkdir(mode=0o700)
        return folder

    def add(self, folder: Path, name: str, spec: Mapping[str, Any]) -> Job:
        """Turn a folder into a job, last in the queue; all of it is then on disk."""
        job = Job(folder)
        sync_tree(folder)
        text = yaml.safe_dump(dict(spec), sort_keys=False, allow_unicode=True)
        write_atomically(job.spec_path, text)
        sync_folder(self._folder)
        now = time.time()
        record = JobRecord(name, JobState.QUEUED, now, now)
        write_json(folder / "job.json", asdict(record))
        job.log_state(record)
        return job

    def get(self, job_id: str) -> Job | None:
        """Return the job with this id; None if there is none."""
        folder = self._folder / job_id
        is_job = _ID.fullmatch(job_id) is not None and (folder / "job.json").is_file()
        return Job(folder) if is_job else None

    def all(self) -> list[Job]:
        """Return every job, the oldest first."""
        return [Job(path.parent) for path in sorted(self._folder.glob("*/job.json"))]

    def records(self) -> list[tuple[Job, JobRecord]]:
        """Return every job whose record can be read, the oldest first."""
        found = []
        for job in self.all():
            try:
                found.append((job, job.record()))
            except RecordError as error:
                if job.id not in self._reported:
                    self._reported.add(job.id)
                    _LOG.warning("%s", error)
        return found

    def active_ids(self) -> set[str]:
        """Return the ids of the jobs that run, or whose processes do."""
        recorded = {job.id for job, record in self.records() if record.state in ACTIVE}
        return recorded | {job.id for job in self.all() if job.is_active()}

    def remove_incomplete(self) -> None:
        """Remove the folders of submissions that a killed service did not finish."""
        for folder in self._folder.iterdir():
            if _ID.fullmatch(folder.name) and not (folder / "job.json").exists():
                shutil.rmtree(folder, ignore_errors=True)


def write_json(path: Path, data: Any) -> None:
    """Write JSON data atomically."""
    write_atomically(path, json.dumps(data, indent=1) + "\n")
