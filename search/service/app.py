"""The HTTP API and the files of the web page. Handlers return a view or raise RequestError."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

from aiohttp import web
from pydantic import BaseModel

from search.cluster.ray_token import create_secret_file
from search.errors import RecordError, ServiceError, SpecError, SpecProblem
from search.report.plotly_library import plotly_text
from search.service import metrics
from search.service.access import Access
from search.service.answers import figures_view, pareto_view, plan_view
from search.service.demo import demo_specification
from search.service.errors import RequestError
from search.service.event_stream import EventStreams
from search.service.job_queue import JobQueue, Line, requeue_job, stop_job
from search.service.job_views import JobViews
from search.service.jobs import Job, JobState, JobStore
from search.service.metrics import JobMetrics
from search.service.openapi import document
from search.service.run_results import RunResults
from search.service.sending import send_file, send_in_parts
from search.service.slots import Slots
from search.service.submission import accept, parse
from search.service.trial_views import trial_detail_view, trial_view
from search.service.uploads import read_submission, read_text
from search.service.views import (
    CheckView,
    DemoView,
    ErrorView,
    FieldProblem,
    JobsView,
    JobView,
    TrialsView,
    WaitView,
)
from search.spec.loading import parse_spec
from search.study.run_folder import Run
from servetune.errors import ServetuneError
from serving.errors import DemoError

T = TypeVar("T")

STATIC = Path(__file__).parent / "static"
#: An idle connection is closed after this time, seconds.
KEEP_ALIVE_S = 30.0
#: Number of submissions, and of checks, that are read at the same time.
_MAX_SUBMISSIONS = 8
#: Number of downloads that are sent at the same time.
_MAX_DOWNLOADS = 8
#: Headers of every response.
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_PAGE_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; object-src 'none'"
)
_REPORT_POLICY = "sandbox allow-scripts; frame-ancestors 'none'"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServiceOptions:
    """The options that the service was started with.

    Attributes:
        roots: folders that the files of a specification must be inside.
        token: the token that every request must send; None requires none.
        max_request_bytes: the maximum size of a request.
        names: names by which clients may reach the service, beside those of the loopback.
        allowed_hosts: hosts, beside the loopback, that a job may send results to.
        links: addresses of related pages by name, such as Ray's dashboard.
    """

    roots: tuple[Path, ...]
    token: str | None
    max_request_bytes: int = 1 << 30
    names: frozenset[str] = frozenset()
    allowed_hosts: frozenset[str] = frozenset()
    links: Mapping[str, str] = field(default_factory=dict)


def read_token(root: Path) -> str:
    """Return the token in this folder; the first start creates it, readable only by its owner.

    Raises:
        ServiceError: the file is empty.
    """
    path = root / "token"
    create_secret_file(path)
    if token := path.read_text().strip():
        return token
    raise ServiceError(f"{path} is empty; delete it and restart the service for a new token")


class Service:
    """The HTTP handlers, on top of the jobs and their queue."""

    def __init__(self, store: JobStore, queue: JobQueue, options: ServiceOptions):
        self._store, self._queue, self._options = store, queue, options
        self._results = RunResults()
        self._views = JobViews(self._results, options.links)
        self._metrics = JobMetrics(store, self._results)
        self._access = Access(options.names, options.token)
        self._streams = EventStreams()
        self._submissions = Slots(_MAX_SUBMISSIONS, "submissions are read")
        self._checks = Slots(_MAX_SUBMISSIONS, "specifications are checked")
        self._downloads = Slots(_MAX_DOWNLOADS, "downloads are sent")
        self._files_lock = asyncio.Lock()
        # Reading a run may take seconds, and its caches are not thread-safe: one at a time, and
        # never in the event loop.
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="views")

    def app(self) -> web.Application:
        """Return the application; the queue runs as long as it does."""
        app = web.Application(
            middlewares=[self._guard], client_max_size=self._options.max_request_bytes
        )
        app.add_routes(
            [
                web.get("/", self._show_page),
                web.get("/metrics", self._show_metrics),
                web.get("/v1/openapi.json", self._show_openapi),
                web.post("/v1/check", self._check_specification),
                web.post("/v1/demo", self._build_demo),
                web.get("/v1/jobs", self._list_jobs),
                web.post("/v1/jobs", self._submit_job),
                web.get("/v1/jobs/{id}", self._show_job),
                web.delete("/v1/jobs/{id}", self._stop_job),
                web.post("/v1/jobs/{id}/resume", self._resume_job),
                web.get("/v1/jobs/{id}/trials", self._list_trials),
                web.get("/v1/jobs/{id}/trials/{number}", self._show_trial),
                web.get("/v1/jobs/{id}/events", self._stream_events, allow_head=False),
                web.get("/v1/jobs/{id}/figures", self._show_figures),
                web.get("/v1/jobs/{id}/pareto", self._show_pareto),
                web.get("/v1/jobs/{id}/plan", self._show_plan),
                web.get("/v1/jobs/{id}/report", self._show_report),
                web.get("/v1/jobs/{id}/best.tar.gz", self._download_best),
                web.get("/static/plotly.js", self._send_plotly),
                web.static("/static", STATIC),
            ]
        )
        app.cleanup_ctx.append(self._queue_context)
        return app

    async def _queue_context(self, app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self._queue.run())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    @web.middleware
    async def _guard(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        try:
            self._access.check(request)
            answer = await handler(request)
        except RequestError as error:
            answer = _json(_error_view(error), error.status)
            if error.status == 401:
                answer.headers["WWW-Authenticate"] = "Bearer"
            if error.status in (408, 413, 415):
                answer.force_close()  # The rest of the body is not read.
        except web.HTTPException as error:
            if error.status < 400:
                raise
            answer = _json(ErrorView(error=error.reason), error.status)
            if "Allow" in error.headers:
                answer.headers["Allow"] = error.headers["Allow"]
        except ConnectionError:
            raise
        except (ServetuneError, OSError, ValueError) as error:
            _LOG.warning("%s %s failed: %s", request.method, request.path, error)
            answer = _json(ErrorView(error=str(error)), 500)
        if answer.prepared:
            return answer
        answer.headers.update(_HEADERS)
        return await send_in_parts(answer, request) if isinstance(answer, web.Response) else answer

    async def _read(self, read: Callable[..., T], *arguments: Any) -> T:
        """Call a function that reads files in the thread for it."""
        return await asyncio.get_running_loop().run_in_executor(self._reader, read, *arguments)

    # --- the page ----------------------------------------------------------------------

    async def _show_page(self, request: web.Request) -> web.StreamResponse:
        text = (STATIC / "index.html").read_text()
        headers = {"Content-Security-Policy": _PAGE_POLICY}
        return web.Response(text=text, content_type="text/html", headers=headers)

    async def _send_plotly(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text=plotly_text(), content_type="text/javascript")

    async def _show_openapi(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(document())

    async def _show_metrics(self, request: web.Request) -> web.StreamResponse:
        body = await self._read(self._metrics.text)
        return web.Response(body=body, headers={"Content-Type": metrics.CONTENT_TYPE})

    # --- jobs --------------------------------------------------------------------------

    async def _list_jobs(self, request: web.Request) -> web.StreamResponse:
        def build() -> JobsView:
            newest_first = list(reversed(self._store.all()))
            line = self._queue.line()
            return JobsView(jobs=[self._job_view(job, line) for job in newest_first])

        return _json(await self._read(build))

    async def _submit_job(self, request: web.Request) -> web.StreamResponse:
        with self._submissions.take():
            job = await self._accept(request)
        self._queue.wake()
        answer = _json(await self._view(job), 201)
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
                parse_spec({"name": "job", **parse(text)}, self._options.roots[0])
            except SpecError as error:
                return error.records
            except (RecursionError, OverflowError) as error:
                return [SpecProblem("", f"a value is nested too deeply or too large: {error}")]
            return []

        with self._checks.take():
            problems = await asyncio.to_thread(check, await read_text(request))
        if problems:
            raise RequestError(422, "the specification is invalid", problems)
        return _json(CheckView(valid=True))

    async def _build_demo(self, request: web.Request) -> web.StreamResponse:
        async with self._files_lock:
            try:
                text = await asyncio.to_thread(demo_specification, self._store.demo_folder)
            except DemoError as error:
                raise RequestError(409, str(error)) from None
        return _json(DemoView(specification=text))

    async def _show_job(self, request: web.Request) -> web.StreamResponse:
        return _json(await self._view(self._job(request)))

    async def _stop_job(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        state = _state(job)
        if state.is_over:
            raise RequestError(409, f"the job is over: it {_END_TEXTS[state]}")
        if state is not JobState.STOPPING:
            stop_job(job)
            if _state(job).is_over:  # It was waiting.
                self._queue.report_end(job)
            self._queue.wake()
        return _json(await self._view(job), 202)

    async def _resume_job(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        state = _state(job)
        if not state.is_over:
            raise RequestError(409, f"the job is not over: it is {state}; stop it first")
        requeue_job(job)
        self._queue.wake()
        return _json(await self._view(job), 202)

    # --- results -----------------------------------------------------------------------

    async def _list_trials(self, request: web.Request) -> web.StreamResponse:
        results = await self._read(self._results.read, self._job(request).run())
        return _json(TrialsView(trials=[trial_view(result) for result in results]))

    async def _show_trial(self, request: web.Request) -> web.StreamResponse:
        run = self._run(self._job(request))
        number = request.match_info["number"]
        found = await self._read(self._results.read, run)
        results = {str(result.number): result for result in found}
        if number not in results:
            raise RequestError(404, f"the job has no finished trial {number!r}")
        return _json(await self._read(trial_detail_view, run, results[number]))

    async def _stream_events(self, request: web.Request) -> web.StreamResponse:
        return await self._streams.send(self._job(request), request, _HEADERS)

    async def _show_figures(self, request: web.Request) -> web.StreamResponse:
        return _json(await self._read(figures_view, self._run(self._job(request))))

    async def _show_pareto(self, request: web.Request) -> web.StreamResponse:
        return _json(await self._read(pareto_view, self._run(self._job(request))))

    async def _show_plan(self, request: web.Request) -> web.StreamResponse:
        return _json(await self._read(plan_view, self._run(self._job(request)), request.query))

    async def _show_report(self, request: web.Request) -> web.StreamResponse:
        from search.report.summary import html_report, markdown_report
        from search.study.reading import read_outcome

        job = self._job(request)
        run = self._run(job)
        suffix = request.query.get("format", "html")
        if suffix not in ("html", "md"):
            raise RequestError(400, f"format must be html or md (got {suffix!r})")

        build = html_report if suffix == "html" else markdown_report
        path = run.folder / f"report.{suffix}"
        if job.record().state is JobState.FINISHED and path.is_file():
            text = await self._read(path.read_text)
        else:
            async with self._files_lock:
                text = await self._read(lambda: build(read_outcome(run)))
        content_type = "text/html" if suffix == "html" else "text/markdown"
        headers = {"Content-Security-Policy": _REPORT_POLICY}
        return web.Response(text=text, content_type=content_type, headers=headers)

    async def _download_best(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        run, record = self._run(job), job.record()
        folder = run.folder / "best"

        def pack() -> IO[bytes] | None:
            if record.state.is_over:
                _export_missing(run, folder / "README.md", record.ended_s)
            # The job's own process may be replacing them.
            with run.files_locked():
                return _tar(folder) if folder.is_dir() else None

        # Each is a copy of the model on the disk.
        with self._downloads.take():
            async with self._files_lock:
                file = await self._read(pack)
            if file is None:
                raise RequestError(
                    404, "the job has no files for production: no trial is chosen yet"
                )
            name = f'attachment; filename="{run.name}-best.tar.gz"'
            headers = {"Content-Type": "application/gzip", "Content-Disposition": name}
            return await send_file(file, request, {**_HEADERS, **headers})

    # --- helpers -----------------------------------------------------------------------

    def _job(self, request: web.Request) -> Job:
        job = self._store.get(request.match_info["id"])
        if job is None:
            raise RequestError(404, f"there is no job {request.match_info['id']!r}")
        return job

    @staticmethod
    def _run(job: Job) -> Run:
        run = job.run()
        if run is None:
            raise RequestError(404, f"the job {job.id} has not started")
        return run

    async def _view(self, job: Job) -> JobView:
        return await self._read(lambda: self._job_view(job, self._queue.line()))

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


_END_TEXTS = {
    JobState.FINISHED: "has finished",
    JobState.STOPPED: "was stopped",
    JobState.FAILED: "has failed",
}


def _state(job: Job) -> JobState:
    try:
        return job.record().state
    except RecordError as error:
        raise RequestError(409, str(error)) from None


def _fields(problems: Sequence[SpecProblem]) -> list[FieldProblem]:
    return [FieldProblem(path=p.path, message=p.message) for p in problems]


def _error_view(error: RequestError) -> ErrorView:
    problems = error.problems
    return ErrorView(error=str(error), problems=list(map(str, problems)), fields=_fields(problems))


def _json(view: BaseModel, status: int = 200) -> web.Response:
    text = view.model_dump_json()
    return web.Response(text=text, status=status, content_type="application/json")


def _export_missing(run: Run, path: Path, ended_s: float | None) -> None:
    """Write the files for production, unless `path` is newer than the end.

    The job's own process may have been lost before it wrote them.
    """
    from search.export.files import export
    from search.study.reading import read_outcome

    if not path.is_file() or path.stat().st_mtime < (ended_s or 0.0):
        outcome = read_outcome(run)
        if outcome.chosen is not None:
            export(run, outcome.chosen, run.spec().archive(), outcome.confirmation)


def _tar(folder: Path) -> IO[bytes]:
    """Return an archive of a folder, which may contain a model, as a temporary file."""
    file = tempfile.TemporaryFile()  # noqa: SIM115
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        archive.add(folder, arcname="best")
    return file
