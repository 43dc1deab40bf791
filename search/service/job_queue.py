"""Who runs next: one job on a serving host at a time, the others in the order that they came."""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from typing import Protocol

from search.service.jobs import Job, JobState, JobStore

LOOK_S = 1.0
#: An orderly end stops a TorchServe and the load processes first.
STOP_LIMIT_S = 90.0
_LOG = logging.getLogger(__name__)


class Status(enum.Enum):
    """A job's process: never heard of, at work, or ended."""

    UNKNOWN = "unknown"
    RUNNING = "running"
    OVER = "over"


class Runner(Protocol):
    """Starts jobs' processes and knows which have ended; every call may block."""

    def submit(self, job: Job) -> None:
        """Start the process of the job's present attempt."""

    def status(self, job: Job) -> Status:
        """What is known of that process."""
        ...

    def kill(self, job: Job) -> None:
        """End it at once."""


class Queue:
    """Keeps jobs going; all it knows lies in their folders, so that a new one goes on with it.

    Args:
        store: the jobs.
        runner: of their processes.
        at_once: jobs that may run at the same time: the serving hosts.
    """

    def __init__(self, store: JobStore, runner: Runner, at_once: int = 1):
        self._store, self._runner, self._at_once = store, runner, at_once
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """A job was added, or is to stop: look now."""
        self._changed.set()

    def waiting(self) -> list[Job]:
        """The jobs that wait, the next one first."""
        queued = [(job.record(), job) for job in self._store.all()]
        return [
            job
            for record, job in sorted(queued, key=lambda pair: pair[0].queued_s)
            if record.state is JobState.QUEUED
        ]

    async def run(self) -> None:
        """Look after the jobs until cancelled."""
        while True:
            try:
                await self.look()
            except Exception as error:  # Ray may be away for a moment: the next look tells.
                _LOG.warning("the queue could not look after its jobs: %s", error)
            try:
                await asyncio.wait_for(self._changed.wait(), LOOK_S)
            except TimeoutError:
                continue
            self._changed.clear()

    async def look(self) -> None:
        """Settle what has ended, end what takes too long to, start what is next."""
        running = 0
        for job in self._store.all():
            record = job.record()
            if record.state not in (JobState.RUNNING, JobState.STOPPING):
                continue
            status = await asyncio.to_thread(self._runner.status, job)
            if status is Status.OVER or (status is Status.UNKNOWN and job.ended()):
                self._settle(job)
                continue
            running += 1
            if status is Status.UNKNOWN:
                # The service ended before it had said so, or the cluster is a new one.
                await self._submit(job)
            asked_s = job.stop_path.stat().st_mtime if job.stop_path.exists() else time.time()
            if time.time() - asked_s > STOP_LIMIT_S:
                await asyncio.to_thread(self._runner.kill, job)
        for job in self.waiting()[: max(self._at_once - running, 0)]:
            record = job.record()
            job.change(
                state=JobState.RUNNING,
                attempt=record.attempt + 1,
                started_s=time.time(),
                ended_s=None,
                reason=None,
            )
            await self._submit(job)

    async def _submit(self, job: Job) -> None:
        try:
            await asyncio.to_thread(self._runner.submit, job)
        except Exception as error:
            self._end(job, JobState.FAILED, f"Ray did not take the job: {error}")

    def _settle(self, job: Job) -> None:
        if (ended := job.ended()) is not None:
            state, reason = ended
        elif job.stop_path.exists():
            state, reason = JobState.STOPPED, "it was stopped"
        else:
            state = JobState.FAILED
            reason = "its process was lost; what it had measured is kept, and resume goes on"
        self._end(job, state, reason)

    @staticmethod
    def _end(job: Job, state: JobState, reason: str) -> None:
        job.stop_path.unlink(missing_ok=True)
        job.change(state=state, reason=reason, ended_s=time.time())


def stop(job: Job) -> None:
    """Ask a job to end; one that waits ends at once."""
    if job.record().state is JobState.QUEUED:
        job.change(
            state=JobState.STOPPED, reason="it was stopped before it began", ended_s=time.time()
        )
    else:
        job.stop_path.touch()
        job.change(state=JobState.STOPPING)


def resume(job: Job) -> None:
    """Put a job that is over at the queue's end again."""
    job.change(state=JobState.QUEUED, queued_s=time.time(), ended_s=None, reason=None)
