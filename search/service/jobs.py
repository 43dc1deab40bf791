"""Jobs as folders: what was asked for, what happens, how it ended. Pure file work."""

from __future__ import annotations

import enum
import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from search.service.events import EventLog
from search.study.run_folder import Run, write_whole

_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")


class JobState(enum.StrEnum):
    """Where a job is on its way."""

    QUEUED = "queued"
    RUNNING = "running"
    STOPPING = "stopping"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens by itself."""
        return self in (JobState.FINISHED, JobState.STOPPED, JobState.FAILED)


@dataclass(frozen=True)
class JobRecord:
    """What the service knows of a job.

    Attributes:
        name: the specification's.
        state, reason: where it is, and why it ended.
        created_s, queued_s, started_s, ended_s: seconds since 1970; queued_s orders the queue.
        attempt: how often it was submitted; each has a name of its own in Ray.
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
    """One job's folder: job.json, spec.yaml, uploads/, events.jsonl, runs/, stop, end.json."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.id = folder.name
        self.events = EventLog(folder / "events.jsonl")

    @property
    def spec_path(self) -> Path:
        """What was asked for."""
        return self.folder / "spec.yaml"

    @property
    def stop_path(self) -> Path:
        """There as long as the job is to stop."""
        return self.folder / "stop"

    @property
    def submission_id(self) -> str:
        """What Ray calls this attempt."""
        return f"servetune-{self.id}-{self.record().attempt}"

    def record(self) -> JobRecord:
        """What is known of it."""
        data = json.loads((self.folder / "job.json").read_text())
        return JobRecord(**{**data, "state": JobState(data["state"])})

    def change(self, **changes: Any) -> JobRecord:
        """Change what is known; a new state is an event."""
        before = self.record()
        now = replace(before, **changes)
        write_json(self.folder / "job.json", asdict(now))
        if now.state is not before.state:
            self.events.append("state", state=now.state, reason=now.reason)
        return now

    def run(self) -> Run | None:
        """Its run, where it has begun."""
        found = sorted(self.folder.glob("runs/*/spec.yaml"))
        return Run(found[0].parent) if found else None

    def end(self, state: JobState, reason: str) -> None:
        """The job's own process says how this attempt ended."""
        end = {"attempt": self.record().attempt, "state": state, "reason": reason}
        write_json(self.folder / "end.json", end)

    def ended(self) -> tuple[JobState, str] | None:
        """How the present attempt ended, where its process could say so."""
        try:
            end = json.loads((self.folder / "end.json").read_text())
        except OSError:
            return None
        if end["attempt"] != self.record().attempt:
            return None
        return JobState(end["state"]), end["reason"]


class JobStore:
    """All jobs under one folder."""

    def __init__(self, folder: Path):
        self._folder = folder / "jobs"
        self._folder.mkdir(parents=True, exist_ok=True)

    def new_folder(self) -> Path:
        """A folder for a job that is not one yet: `add` makes it one."""
        folder = self._folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        folder.mkdir(mode=0o700)
        return folder

    def add(self, folder: Path, name: str, spec: Mapping[str, Any]) -> Job:
        """Make a folder a job, last in the queue."""
        job = Job(folder)
        job.spec_path.write_text(yaml.safe_dump(dict(spec), sort_keys=False, allow_unicode=True))
        now = time.time()
        write_json(folder / "job.json", asdict(JobRecord(name, JobState.QUEUED, now, now)))
        job.events.append("state", state=JobState.QUEUED, reason=None)
        return job

    def get(self, job_id: str) -> Job | None:
        """The job of this name."""
        folder = self._folder / job_id
        is_one = _ID.fullmatch(job_id) is not None and (folder / "job.json").is_file()
        return Job(folder) if is_one else None

    def all(self) -> list[Job]:
        """Every job, oldest first."""
        return [Job(path.parent) for path in sorted(self._folder.glob("*/job.json"))]


def write_json(path: Path, data: Any) -> None:
    """Write plain data whole or not at all."""
    write_whole(path, json.dumps(data, indent=1) + "\n")
