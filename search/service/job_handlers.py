"""Handlers of the API that list, submit, stop and resume jobs."""

from __future__ import annotations

import asyncio
import shutil

from aiohttp import web

from search.errors import RecordError, SpecError, SpecProblem
from search.service.demo import demo_specification
from search.service.errors import RequestError
from search.service.job_queue import JobQueue, Line, requeue_job, stop_job
from search.service.job_views import JobViews
from search.service.jobs import Job, JobState, JobStore
from search.service.options import ServiceOptions
from search.service.reader_thread import ReaderThread
from search.service.requested import requested_job
from search.service.responses import json_response
from search.service.slots import Slots
from search.service.submission import accept, check_fields, parse
from search.service.uploads import read_submission, read_text
from search.service.views import CheckView, DemoView, JobsView, JobView, WaitView
from serving.errors import DemoError

#: Number of submissions, and of checks, that are read at the same time.
_MAX_SUBMISSIONS = 8
_END_TEXTS = {
    JobState.FINISHED: "has finished",
    JobState.STOPPED: "was stopped",
    JobState.FAILED: "has failed",
}


class JobHandlers:
    """The handlers, on top of the jobs and their queue."""

    def __init__(
        self,
        store: JobStore,
        queue: JobQueue,
        options: ServiceOptions,
        views: JobViews,
        reader: ReaderThread,
    ):
        self._store, self._queue, self._options = store, queue, options
        self._views, self._reader = views, reader
        self._submissions = Slots(_MAX_SUBMISSIONS, "submissions are read")
        self._checks = Slots(_MAX_SUBMISSIONS, "specifications are checked")
        self._demo_lock = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the handlers."""
        return [
            web.post("/v1/check", self._check_specification),
            web.post("/v1/demo", self._build_demo),
            web.get("/v1/jobs", self._list_jobs),
            web.post("/v1/jobs", self._submit_job),
            web.get("/v1/jobs/{id}", self._show_job),
            web.delete("/v1/jobs/{id}", self._stop_job),
            web.post("/v1/jobs/{id}/resume", self._resume_job),
        ]

    async def _list_jobs(self, request: web.Request) -> web.StreamResponse:
        def build() -> JobsView:
            newest_first = list(reversed(self._store.all()))
            line = self._queue.line()
            views = [self._job_view(job, line) for job in newest_first]
            return JobsView(jobs=[view.model_copy(update={"answer": []}) for view in views])

        return json_response(await self._reader.call(build))

    async def _submit_job(self, request: web.Request) -> web.StreamResponse:
        with self._submissions.take():
            job = await self._accept(request)
        self._queue.wake()
        answer = json_response(await self._view(job), 201)
        answer.headers["Location"] = f"/v1/jobs/{job.id}"
        return answer

    async def _accept(self, request: web.Request) -> Job:
        """Read a submission and add its job; nothing of a refused one stays."""
        folder = self._store.new_folder()
        options = self._options
        try:
            text, uploads = await read_submission(request, folder, options.max_request_bytes)
            roots = (*options.roots, folder, self._store.demo_folder)

            def add() -> Job:
                data, spec = accept(parse(text), uploads, roots, options.allowed_hosts)
                return self._store.add(folder, spec.name, data)

            return await asyncio.to_thread(add)
        except SpecError as error:
            shutil.rmtree(folder)
            raise RequestError(422, "the specification is invalid", error.records) from None
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    async def _check_specification(self, request: web.Request) -> web.StreamResponse:
        """Check the fields of a specification; nothing that it names is read."""

        def check(text: bytes) -> list[SpecProblem]:
            try:
                return check_fields(parse(text), self._options.roots[0])
            except SpecError as error:
                return error.records
            except (RecursionError, OverflowError) as error:
                return [SpecProblem("", f"a value is nested too deeply or too large: {error}")]
            except (RuntimeError, OSError):  # Its text may tell what is on this host.
                return [SpecProblem("", "a path cannot be used on this host")]

        with self._checks.take():
            problems = await asyncio.to_thread(check, await read_text(request))
        if problems:
            raise RequestError(422, "the specification is invalid", problems)
        return json_response(CheckView(valid=True))

    async def _build_demo(self, request: web.Request) -> web.StreamResponse:
        async with self._demo_lock:
            try:
                text = await asyncio.to_thread(demo_specification, self._store.demo_folder)
            except DemoError as error:
                raise RequestError(409, str(error)) from None
        return json_response(DemoView(specification=text))

    async def _show_job(self, request: web.Request) -> web.StreamResponse:
        return json_response(await self._view(requested_job(self._store, request)))

    async def _stop_job(self, request: web.Request) -> web.StreamResponse:
        job = requested_job(self._store, request)
        state = _state(job)
        if state.is_over:
            raise RequestError(409, f"the job is over: it {_END_TEXTS[state]}")
        if state is not JobState.STOPPING:
            stop_job(job)
            if _state(job).is_over:  # It was waiting.
                self._queue.report_end(job)
            self._queue.wake()
        return json_response(await self._view(job), 202)

    async def _resume_job(self, request: web.Request) -> web.StreamResponse:
        job = requested_job(self._store, request)
        state = _state(job)
        if not state.is_over:
            raise RequestError(409, f"the job is not over: it is {state}; stop it first")
        requeue_job(job)
        self._queue.wake()
        return json_response(await self._view(job), 202)

    async def _view(self, job: Job) -> JobView:
        return await self._reader.call(lambda: self._job_view(job, self._queue.line()))

    def _job_view(self, job: Job, line: Line) -> JobView:
        view = self._views.view(job, line.positions.get(job.id))
        if view.queue_position is None:
            return view
        waits = [
            WaitView(id=other.id, name=record.name, state=record.state)
            for other, record in line.before(job)
        ]
        changes = {"waits_for": waits, "queue_problem": self._queue.problem}
        return view.model_copy(update=changes)


def _state(job: Job) -> JobState:
    try:
        return job.record().state
    except RecordError as error:
        raise RequestError(409, str(error)) from None
