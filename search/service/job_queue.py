"""Start queued jobs in the order of submission, one for each serving host at a time."""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from search.errors import RecordError, first_line
from search.service.jobs import ACTIVE, Job, JobRecord, JobState, JobStore

POLL_S = 1.0
#: Number of waiting jobs that are listed for another one: a list of all for each is too long.
MAX_SHOWN = 20
#: Seconds that a job has to stop its TorchServe and its load generator processes.
STOP_LIMIT_S = 90.0
_LOG = logging.getLogger(__name__)


class ProcessStatus(enum.Enum):
    """The state of a job's process."""

    UNKNOWN = "unknown"
    RUNNING = "running"
    OVER = "over"


class JobRunner(Protocol):
    """Runs the processes of jobs; every call may block."""

    def submit(self, job: Job) -> None:
        """Start the process of the job's current attempt."""

    def status(self, job: Job) -> ProcessStatus:
        """Return the state of that process; UNKNOWN if it was never submitted."""
        ...

    def kill(self, job: Job) -> None:
        """End that process at once."""


@dataclass(frozen=True)
class Line:
    """The jobs that run, and those that wait, the next one first, at one time."""

    active: list[tuple[Job, JobRecord]]
    waiting: list[tuple[Job, JobRecord]]

    @cached_property
    def positions(self) -> dict[str, int]:
        """The position of each job that waits by its id, from 1."""
        return {job.id: position for position, (job, _) in enumerate(self.waiting, 1)}

    def before(self, job: Job) -> list[tuple[Job, JobRecord]]:
        """Return the jobs that run, and the first that wait before a job; none if it runs."""
        position = self.positions.get(job.id)
        if position is None:
            return []
        return [*self.active, *self.waiting[: min(position - 1, MAX_SHOWN)]]


class JobQueue:
    """The queue of jobs. Its state is in their folders, so that a new queue continues it.

    Args:
        max_running: number of jobs that may run at the same time: the number of serving hosts.
        on_end: called in a thread with each job that ended.
    """

    def __init__(
        self,
        store: JobStore,
        runner: JobRunner,
        max_running: int = 1,
        on_end: Callable[[Job], None] = lambda job: None,
    ):
        self._store, self._runner, self._max_running = store, runner, max_running
        self._on_end = on_end
        self._reports: set[asyncio.Future[None]] = set()
        self._wakeup = asyncio.Event()
        #: Why the last poll failed, or why a job cannot be started; None if neither.
        self.problem: str | None = None
        #: Why jobs that wait could not be started, by their id.
        self._unstarted: dict[str, str] = {}

    def wake(self) -> None:
        """Poll at once, because a job was added, or asked to stop."""
        self._wakeup.set()

    def line(self) -> Line:
        """Return the jobs that run and those that wait."""
        records = self._store.records()
        active = [pair for pair in records if pair[1].state in ACTIVE]
        waiting = [p for p in records if p[1].state is JobState.QUEUED]
        return Line(active, sorted(waiting, key=lambda pair: pair[1].queued_s))

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            try:
                await self.poll()
                self.problem = next(iter(self._unstarted.values()), None)
            except Exception as error:  # Ray may be unreachable for a moment.
                self.problem = f"the queue could not be updated: {first_line(error)}"
                _LOG.warning("the job queue could not be updated; retrying: %s", error)
            try:
                await asyncio.wait_for(self._wakeup.wait(), POLL_S)
            except TimeoutError:
                continue
            self._wakeup.clear()

    async def poll(self) -> None:
        """Record jobs that ended, kill jobs that do not stop in time, start the next jobs."""
        for job, record in self._store.records():
            if record.state in ACTIVE:
                await self._check_safely(job)
        running = await asyncio.to_thread(self._store.active_ids)
        free = self._max_running - len(running)
        waiting = [job for job, _ in self.line().waiting]
        ids = {job.id for job in waiting}
        self._unstarted = {name: why for name, why in self._unstarted.items() if name in ids}
        for job in waiting:
            if free <= 0:
                break
            if job.id not in running:
                free -= await self._start_safely(job)

    async def _start_safely(self, job: Job) -> bool:
        """Start a job; return False if it does not run, so that the next one may start."""
        earlier = self._unstarted.pop(job.id, None)
        try:
            # While an earlier one was submitted, a user may have stopped it.
            if not _has_state(job, JobState.QUEUED):
                return False
            job.change(
                state=JobState.RUNNING,
                attempt=job.next_attempt(),
                started_s=time.time(),
                ended_s=None,
                reason=None,
            )
            await self._submit(job)
        except Exception as error:
            problem = f"the job {job.id} could not be started: {first_line(error)}"
            self._unstarted[job.id] = problem
            if earlier != problem:
                _LOG.warning("%s; retrying", problem)
            # If the new state was recorded, the next poll submits the job.
            return _has_state(job, JobState.RUNNING)
        return True

    async def _check_safely(self, job: Job) -> None:
        try:
            await self._check(job)
        except Exception as error:
            _LOG.warning("the job %s could not be checked; retrying: %s", job.id, error)

    async def _check(self, job: Job) -> None:
        """Record the end of a job that was started, submit it again, or kill it."""
        status = await asyncio.to_thread(self._runner.status, job)
        is_unknown = status is ProcessStatus.UNKNOWN and not job.has_process()
        has_ended = job.ended() is not None or job.stop_path.exists()
        if status is ProcessStatus.OVER or (is_unknown and has_ended):
            self._record_end(job)
            return
        if is_unknown:
            # The service ended before the submission, or the cluster is a new one.
            await self._submit(job)
        stop_asked_s = job.stop_path.stat().st_mtime if job.stop_path.exists() else time.time()
        if time.time() - stop_asked_s > STOP_LIMIT_S:
            await asyncio.to_thread(self._runner.kill, job)

    async def _submit(self, job: Job) -> None:
        try:
            await asyncio.to_thread(self._runner.submit, job)
        except Exception as error:
            self._end(job, JobState.FAILED, f"Ray did not accept the job: {error}")

    def _record_end(self, job: Job) -> None:
        if (ended := job.ended()) is not None:
            state, reason = ended
        elif job.stop_path.exists():
            state, reason = JobState.STOPPED, "a user stopped it"
        else:
            state = JobState.FAILED
            reason = "its process was lost; finished trials are kept; resume the job to continue"
        self._end(job, state, reason)

    def _end(self, job: Job, state: JobState, reason: str) -> None:
        try:
            job.change(state=state, reason=reason, ended_s=time.time())
            job.stop_path.unlink(missing_ok=True)
        finally:
            # A job whose end is recorded is not checked again, whatever failed after that; one
            # whose end is not recorded is, and must not be reported each time.
            if _has_state(job, state):
                self.report_end(job)

    def report_end(self, job: Job) -> None:
        """Call `on_end` in a thread; the queue continues."""

        def report() -> None:
            try:
                self._on_end(job)
            except Exception as error:
                _LOG.warning("the end of the job %s could not be reported: %s", job.id, error)

        task = asyncio.ensure_future(asyncio.to_thread(report))
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)


def _has_state(job: Job, state: JobState) -> bool:
    """Return whether the job's record can be read and has this state."""
    try:
        return job.record().state is state
    except RecordError:
        return False


def stop_job(job: Job) -> None:
    """Ask a running job to stop; a queued job is stopped at once."""
    if job.record().state is JobState.QUEUED and not job.has_process():
        job.change(
            state=JobState.STOPPED, reason="it was stopped before it started", ended_s=time.time()
        )
    else:
        job.stop_path.touch()
        job.change(state=JobState.STOPPING)


def requeue_job(job: Job) -> None:
    """Put a job that is over at the end of the queue."""
    job.stop_path.unlink(missing_ok=True)
    job.change(state=JobState.QUEUED, queued_s=time.time(), ended_s=None, reason=None)
