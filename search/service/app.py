"""The HTTP API and the files of the web page. Handlers return a view or raise RequestError."""

from __future__ import annotations

import asyncio
import hmac
import io
import json
import shutil
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import BodyPartReader, web
from aiohttp.http import HttpProcessingError
from plotly.offline import get_plotlyjs
from pydantic import BaseModel

from search.cluster.ray_token import create_secret_file
from search.errors import ServiceError, SpecError
from search.service.job_queue import JobQueue, requeue_job, stop_job
from search.service.jobs import Job, JobState, JobStore
from search.service.openapi import document
from search.service.submission import accept, parse
from search.service.views import ErrorView, JobsView, JobView, TrialsView, ViewBuilder, trial_view
from search.study.run_folder import Run

STATIC = Path(__file__).parent / "static"
_MAX_SPEC_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16
_POLL_S = 0.25
#: A comment is sent after this time without an event, seconds.
_KEEP_ALIVE_S = 15.0
#: Paths without a secret; the page among them asks for the token itself.
_PATHS_WITHOUT_TOKEN = ("/", "/v1/openapi.json")


@dataclass(frozen=True)
class ServiceOptions:
    """The options that the service was started with.

    Attributes:
        roots: folders that the files of a specification must be inside.
        token: the token that every request must send; None requires none.
        max_request_bytes: the maximum size of a request.
        links: addresses of related pages by name, such as Ray's dashboard.
    """

    roots: tuple[Path, ...]
    token: str | None
    max_request_bytes: int = 1 << 30
    links: Mapping[str, str] = field(default_factory=dict)


class RequestError(Exception):
    """A request that the service rejects.

    Args:
        status: the HTTP status of the response.
        problems: what is wrong with a submitted specification.
    """

    def __init__(self, status: int, error: str, problems: Sequence[str] = ()):
        super().__init__(error)
        self.status, self.view = status, ErrorView(error=error, problems=list(problems))


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
        self._views = ViewBuilder(options.links)
        self._export_lock = asyncio.Lock()

    def app(self) -> web.Application:
        """Return the application; the queue runs as long as it does."""
        app = web.Application(
            middlewares=[self._guard], client_max_size=self._options.max_request_bytes
        )
        app.add_routes(
            [
                web.get("/", self._show_page),
                web.get("/v1/openapi.json", self._show_openapi),
                web.get("/v1/jobs", self._list_jobs),
                web.post("/v1/jobs", self._submit_job),
                web.get("/v1/jobs/{id}", self._show_job),
                web.delete("/v1/jobs/{id}", self._stop_job),
                web.post("/v1/jobs/{id}/resume", self._resume_job),
                web.get("/v1/jobs/{id}/trials", self._list_trials),
                web.get("/v1/jobs/{id}/trials/{number}", self._show_trial),
                web.get("/v1/jobs/{id}/events", self._stream_events),
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
            self._authorize(request)
            answer = await handler(request)
        except RequestError as error:
            answer = _json(error.view, error.status)
            if error.status == 401:
                answer.headers["WWW-Authenticate"] = "Bearer"
        except web.HTTPException as error:
            if error.status < 400:
                raise
            answer = _json(ErrorView(error=error.reason), error.status)
            if "Allow" in error.headers:
                answer.headers["Allow"] = error.headers["Allow"]
        if not answer.prepared:
            answer.headers["X-Content-Type-Options"] = "nosniff"
            answer.headers["Referrer-Policy"] = "no-referrer"
            answer.headers["Cache-Control"] = "no-store"
        return answer

    def _authorize(self, request: web.Request) -> None:
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            raise RequestError(403, f"requests from pages of {origin} are not allowed")
        token = self._options.token
        is_public = request.path in _PATHS_WITHOUT_TOKEN or request.path.startswith("/static/")
        if token is None or is_public:
            return
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        # A header may contain any bytes.
        given = credentials.strip().encode(errors="surrogateescape")
        is_correct = hmac.compare_digest(given, token.encode())
        if scheme.lower() != "bearer" or not credentials:
            raise RequestError(401, "a token is required: Authorization: Bearer TOKEN")
        if not is_correct:
            raise RequestError(401, "the token is wrong")

    # --- the page ----------------------------------------------------------------------

    async def _show_page(self, request: web.Request) -> web.StreamResponse:
        text = (STATIC / "index.html").read_text()
        policy = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:"
        headers = {"Content-Security-Policy": policy}
        return web.Response(text=text, content_type="text/html", headers=headers)

    async def _send_plotly(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text=_plotly_text(), content_type="text/javascript")

    async def _show_openapi(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(document())

    # --- jobs --------------------------------------------------------------------------

    async def _list_jobs(self, request: web.Request) -> web.StreamResponse:
        positions = self._queue.positions()
        jobs = [self._views.job(job, positions.get(job.id)) for job in reversed(self._store.all())]
        return _json(JobsView(jobs=jobs))

    async def _submit_job(self, request: web.Request) -> web.StreamResponse:
        folder = self._store.new_folder()
        try:
            text, uploads = await self._read_body(request, folder)
            roots = (*self._options.roots, folder)
            data, spec = await asyncio.to_thread(accept, parse(text), uploads, roots)
            job = self._store.add(folder, spec.name, data)
        except SpecError as error:
            shutil.rmtree(folder)
            raise RequestError(422, "the specification is invalid", error.problems) from None
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._queue.wake()
        answer = _json(self._view(job), 201)
        answer.headers["Location"] = f"/v1/jobs/{job.id}"
        return answer

    async def _read_body(self, request: web.Request, folder: Path) -> tuple[bytes, dict[str, Path]]:
        """Return the specification and the uploaded files, which are written into `folder`."""
        if not request.content_type.startswith("multipart/"):
            chunks = request.content.iter_chunked(_CHUNK_BYTES)
            return await _read_specification(chunks), {}
        text, uploads = b"", {}
        bytes_left = self._options.max_request_bytes
        try:
            reader = await request.multipart()
            while (part := await reader.next()) is not None:
                if not isinstance(part, BodyPartReader):
                    raise RequestError(400, "a part of the body must not be multipart itself")
                if part.name == "spec":
                    text = await _read_specification(_chunks(part))
                    continue
                if part.name not in ("archive", "requests"):
                    raise RequestError(
                        400, f"unknown part {part.name!r}; known parts are spec, archive, requests"
                    )
                # The model store needs the archive's file name; the client's folders are dropped.
                name = Path(part.filename or part.name).name
                path = folder / "uploads" / part.name / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    async for chunk in _chunks(part):
                        if (bytes_left := bytes_left - len(chunk)) < 0:
                            limit = self._options.max_request_bytes
                            raise RequestError(413, f"the request is larger than {limit} bytes")
                        file.write(chunk)
                uploads[part.name] = path
        except (HttpProcessingError, ValueError, OSError) as error:
            raise RequestError(400, f"the body cannot be read: {error}") from None
        return text, uploads

    async def _show_job(self, request: web.Request) -> web.StreamResponse:
        return _json(self._view(self._job(request)))

    async def _stop_job(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        state = job.record().state
        if state.is_over:
            raise RequestError(409, f"the job is over: it {_END_TEXTS[state]}")
        if state is not JobState.STOPPING:
            stop_job(job)
            self._queue.wake()
        return _json(self._view(job), 202)

    async def _resume_job(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        state = job.record().state
        if not state.is_over:
            raise RequestError(409, f"the job is not over: it is {state}; stop it first")
        requeue_job(job)
        self._queue.wake()
        return _json(self._view(job), 202)

    # --- results -----------------------------------------------------------------------

    async def _list_trials(self, request: web.Request) -> web.StreamResponse:
        results = self._views.results(self._job(request).run())
        return _json(TrialsView(trials=[trial_view(result) for result in results]))

    async def _show_trial(self, request: web.Request) -> web.StreamResponse:
        run = self._run(self._job(request))
        number = request.match_info["number"]
        results = {str(result.number): result for result in self._views.results(run)}
        if number not in results:
            raise RequestError(404, f"the job has no finished trial {number!r}")
        return _json(await asyncio.to_thread(self._views.trial, run, results[number]))

    async def _stream_events(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        try:
            after = int(request.headers.get("Last-Event-ID", "0"))
            if not job.events.is_event_id(after):
                raise ValueError
        except ValueError:
            raise RequestError(400, "Last-Event-ID must be the id of an event") from None
        answer = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await answer.prepare(request)
        silent_s = 0.0
        while True:
            # Read the state first, so that no event written before it is missed.
            is_over = job.record().state.is_over
            events = job.events.read(after)
            for event in events:
                after = event.id
                data = json.dumps({"time_s": event.time_s, **event.data})
                await answer.write(
                    f"id: {event.id}\nevent: {event.kind}\ndata: {data}\n\n".encode()
                )
            if events:
                silent_s = 0.0
                continue
            if is_over:
                return answer
            await asyncio.sleep(_POLL_S)
            silent_s += _POLL_S
            if silent_s >= _KEEP_ALIVE_S:
                silent_s = 0.0
                await answer.write(b": keep-alive\n\n")

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
            text = path.read_text()
        else:
            text = await asyncio.to_thread(lambda: build(read_outcome(run)))
        content_type = "text/html" if suffix == "html" else "text/markdown"
        headers = {"Content-Security-Policy": "sandbox allow-scripts"}
        return web.Response(text=text, content_type=content_type, headers=headers)

    async def _download_best(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        run, record = self._run(job), job.record()
        folder = run.folder / "best"
        if record.state.is_over:
            await self._export_missing(run, folder / "README.md", record.ended_s)
        if not folder.is_dir():
            raise RequestError(404, "the job has no files for production: no trial is chosen yet")
        body = await asyncio.to_thread(_tar, folder)
        headers = {"Content-Disposition": f'attachment; filename="{run.name}-best.tar.gz"'}
        return web.Response(body=body, content_type="application/gzip", headers=headers)

    async def _export_missing(self, run: Run, path: Path, ended_s: float | None) -> None:
        """Write the files for production, unless `path` is newer than the end.

        The job's own process may have been lost before it wrote them.
        """
        from search.export.files import export
        from search.study.reading import read_outcome

        def write() -> None:
            outcome = read_outcome(run)
            if outcome.chosen is not None:
                export(run, outcome.chosen, run.spec().archive(), outcome.confirmation)

        async with self._export_lock:
            if not path.is_file() or path.stat().st_mtime < (ended_s or 0.0):
                await asyncio.to_thread(write)

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

    def _view(self, job: Job) -> JobView:
        return self._views.job(job, self._queue.positions().get(job.id))


_END_TEXTS = {
    JobState.FINISHED: "has finished",
    JobState.STOPPED: "was stopped",
    JobState.FAILED: "has failed",
}


def _json(view: BaseModel, status: int = 200) -> web.Response:
    text = view.model_dump_json()
    return web.Response(text=text, status=status, content_type="application/json")


async def _chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
    while chunk := await part.read_chunk(_CHUNK_BYTES):
        yield chunk


async def _read_specification(chunks: AsyncIterator[bytes]) -> bytes:
    text = b""
    async for chunk in chunks:
        text += chunk
        if len(text) > _MAX_SPEC_BYTES:
            raise RequestError(413, f"the specification is larger than {_MAX_SPEC_BYTES} bytes")
    return text


def _tar(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(folder, arcname="best")
    return buffer.getvalue()


@cache
def _plotly_text() -> str:
    text: str = get_plotlyjs()
    return text
