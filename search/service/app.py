"""The HTTP API and the page's files. Every handler answers a view, or a refusal with its reason."""

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
from search.service import job_queue as queue
from search.service.jobs import Job, JobState, JobStore
from search.service.openapi import document
from search.service.submission import accept, parse
from search.service.views import ErrorView, JobsView, JobView, TrialsView, Views, trial_view
from search.study.run_folder import Run

STATIC = Path(__file__).parent / "static"
#: A specification is text that somebody wrote.
SPEC_BYTES = 1 << 20
_CHUNK = 1 << 16
_LOOK_S = 0.25
_ALIVE_S = 15.0
_LOG_BYTES = 1 << 15
#: What needs no token: they hold no secret, and the page asks for the token itself.
_OPEN = ("/", "/v1/openapi.json")


@dataclass(frozen=True)
class Settings:
    """What the service was started with.

    Attributes:
        roots: folders that specifications may name files in.
        token: that every request must bear; None asks for none.
        upload_bytes: the most of one request.
        links: by name, where else something is to be seen.
    """

    roots: tuple[Path, ...]
    token: str | None
    upload_bytes: int = 1 << 30
    links: Mapping[str, str] = field(default_factory=dict)


class RefusedRequest(Exception):
    """A request that is not carried out."""

    def __init__(self, status: int, error: str, problems: Sequence[str] = ()):
        super().__init__(error)
        self.status, self.view = status, ErrorView(error=error, problems=list(problems))


def read_token(root: Path) -> str:
    """The token of this folder, made at the first start; nobody else may read its file."""
    path = root / "token"
    create_secret_file(path)
    if token := path.read_text().strip():
        return token
    raise ServiceError(f"{path} is empty; remove it, and the next start makes a new token")


class Service:
    """The handlers, over the jobs and their queue."""

    def __init__(self, store: JobStore, jobs: queue.Queue, settings: Settings):
        self._store, self._queue, self._settings = store, jobs, settings
        self._views = Views(settings.links)
        self._writing = asyncio.Lock()

    def app(self) -> web.Application:
        """The whole application; the queue runs as long as it does."""
        app = web.Application(
            middlewares=[self._guard], client_max_size=self._settings.upload_bytes
        )
        app.add_routes(
            [
                web.get("/", self._page),
                web.get("/v1/openapi.json", self._openapi),
                web.get("/v1/jobs", self._list),
                web.post("/v1/jobs", self._submit),
                web.get("/v1/jobs/{id}", self._show),
                web.delete("/v1/jobs/{id}", self._stop),
                web.post("/v1/jobs/{id}/resume", self._resume),
                web.get("/v1/jobs/{id}/trials", self._trials),
                web.get("/v1/jobs/{id}/trials/{number}", self._trial),
                web.get("/v1/jobs/{id}/events", self._events),
                web.get("/v1/jobs/{id}/report", self._report),
                web.get("/v1/jobs/{id}/best.tar.gz", self._best),
                web.get("/static/plotly.js", self._plotly),
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
            self._authorise(request)
            answer = await handler(request)
        except RefusedRequest as refusal:
            answer = _json(refusal.view, refusal.status)
            if refusal.status == 401:
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

    def _authorise(self, request: web.Request) -> None:
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            raise RefusedRequest(403, f"pages of {origin} may not ask this service")
        token = self._settings.token
        if token is None or request.path in _OPEN or request.path.startswith("/static/"):
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        # A header may hold any bytes.
        same = hmac.compare_digest(given.strip().encode(errors="surrogateescape"), token.encode())
        if scheme.lower() != "bearer" or not given:
            raise RefusedRequest(401, "a token is needed: Authorization: Bearer TOKEN")
        if not same:
            raise RefusedRequest(401, "the token is not this service's")

    # --- the page ----------------------------------------------------------------------

    async def _page(self, request: web.Request) -> web.StreamResponse:
        text = (STATIC / "index.html").read_text()
        policy = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:"
        headers = {"Content-Security-Policy": policy}
        return web.Response(text=text, content_type="text/html", headers=headers)

    async def _plotly(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text=_plotly_text(), content_type="text/javascript")

    async def _openapi(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(document())

    # --- jobs --------------------------------------------------------------------------

    async def _list(self, request: web.Request) -> web.StreamResponse:
        waiting = self._places()
        jobs = [self._views.job(job, waiting.get(job.id)) for job in reversed(self._store.all())]
        return _json(JobsView(jobs=jobs))

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        folder = self._store.new_folder()
        try:
            text, uploads = await self._received(request, folder)
            roots = (*self._settings.roots, folder)
            data, spec = await asyncio.to_thread(accept, parse(text), uploads, roots)
            job = self._store.add(folder, spec.name, data)
        except SpecError as error:
            shutil.rmtree(folder)
            raise RefusedRequest(422, "the specification was refused", error.problems) from None
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._queue.wake()
        answer = _json(self._view(job), 201)
        answer.headers["Location"] = f"/v1/jobs/{job.id}"
        return answer

    async def _received(self, request: web.Request, folder: Path) -> tuple[bytes, dict[str, Path]]:
        """The specification, and the files that came along."""
        if not request.content_type.startswith("multipart/"):
            return await _at_most(request.content.iter_chunked(_CHUNK), SPEC_BYTES), {}
        text, uploads, left = b"", {}, self._settings.upload_bytes
        try:
            reader = await request.multipart()
            while (part := await reader.next()) is not None:
                if not isinstance(part, BodyPartReader):
                    raise RefusedRequest(400, "a part of the body is multipart itself")
                if part.name == "spec":
                    text = await _at_most(_chunks(part), SPEC_BYTES)
                    continue
                if part.name not in ("archive", "requests"):
                    raise RefusedRequest(
                        400, f"no part {part.name!r} is known: spec, archive and requests are"
                    )
                # The file's own name is kept, for it is the archive's; its folders are not.
                name = Path(part.filename or part.name).name
                place = folder / "uploads" / part.name
                place.mkdir(parents=True, exist_ok=True)
                with (place / name).open("wb") as file:
                    async for chunk in _chunks(part):
                        if (left := left - len(chunk)) < 0:
                            raise RefusedRequest(
                                413, f"more than {self._settings.upload_bytes} bytes"
                            )
                        file.write(chunk)
                uploads[part.name] = place / name
        except (HttpProcessingError, ValueError, OSError) as error:
            raise RefusedRequest(400, f"the body cannot be read: {error}") from None
        return text, uploads

    async def _show(self, request: web.Request) -> web.StreamResponse:
        return _json(self._view(self._job(request)))

    async def _stop(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        state = job.record().state
        if state.is_over:
            raise RefusedRequest(409, f"the job is over: it {_SAID[state]}")
        if state is not JobState.STOPPING:
            queue.stop(job)
            self._queue.wake()
        return _json(self._view(job), 202)

    async def _resume(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        state = job.record().state
        if not state.is_over:
            raise RefusedRequest(409, f"the job is not over: it is {state}")
        queue.resume(job)
        self._queue.wake()
        return _json(self._view(job), 202)

    # --- what came of them -------------------------------------------------------------

    async def _trials(self, request: web.Request) -> web.StreamResponse:
        results = self._views.results(self._job(request).run())
        return _json(TrialsView(trials=[trial_view(result) for result in results]))

    async def _trial(self, request: web.Request) -> web.StreamResponse:
        run = self._run(self._job(request))
        text = request.match_info["number"]
        known = {str(result.number): result for result in self._views.results(run)}
        if text not in known:
            raise RefusedRequest(404, f"the job has no finished trial {text!r}")
        return _json(await asyncio.to_thread(self._views.trial, run, known[text]))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        try:
            after = int(request.headers.get("Last-Event-ID", "0"))
            if not job.events.is_event_id(after):
                raise ValueError
        except ValueError:
            raise RefusedRequest(400, "Last-Event-ID must be the id of an event") from None
        answer = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await answer.prepare(request)
        silent_s = 0.0
        while True:
            # Its end is written before the state that ends this loop is seen.
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
            await asyncio.sleep(_LOOK_S)
            silent_s += _LOOK_S
            if silent_s >= _ALIVE_S:
                silent_s = 0.0
                await answer.write(b": still there\n\n")

    async def _report(self, request: web.Request) -> web.StreamResponse:
        from search.report.summary import write_report
        from search.study.reading import read_outcome

        job = self._job(request)
        run = self._run(job)
        suffix = request.query.get("format", "html")
        if suffix not in ("html", "md"):
            raise RefusedRequest(400, f"format must be html or md, got {suffix!r}")

        path = run.folder / f"report.{suffix}"
        record = job.record()
        if not record.state.is_over:
            await asyncio.to_thread(lambda: write_report(read_outcome(run)))
        else:
            await self._finished(run, path, record.ended_s)
        kind = "text/html" if suffix == "html" else "text/markdown"
        headers = {"Content-Security-Policy": "sandbox allow-scripts"}
        return web.Response(text=path.read_text(), content_type=kind, headers=headers)

    async def _best(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        run, record = self._run(job), job.record()
        folder = run.folder / "best"
        if record.state.is_over:
            await self._finished(run, folder / "README.md", record.ended_s)
        if not folder.is_dir():
            raise RefusedRequest(
                404, "the job has no files for production: it chose nothing so far"
            )
        body = await asyncio.to_thread(_packed, folder)
        headers = {"Content-Disposition": f'attachment; filename="{run.name}-best.tar.gz"'}
        return web.Response(body=body, content_type="application/gzip", headers=headers)

    async def _finished(self, run: Run, path: Path, ended_s: float | None) -> None:
        """Write what a job's own process could not, as it was lost, or wrote before its end."""
        from search.export.files import export
        from search.report.summary import write_report
        from search.study.reading import read_outcome

        def write() -> None:
            found = read_outcome(run)
            write_report(found)
            if found.chosen is not None:
                export(run, found.chosen, run.spec().archive(), found.confirmation)

        async with self._writing:
            if not path.is_file() or path.stat().st_mtime < (ended_s or 0.0):
                await asyncio.to_thread(write)

    # --- inside ------------------------------------------------------------------------

    def _job(self, request: web.Request) -> Job:
        job = self._store.get(request.match_info["id"])
        if job is None:
            raise RefusedRequest(404, f"there is no job {request.match_info['id']!r}")
        return job

    @staticmethod
    def _run(job: Job) -> Run:
        run = job.run()
        if run is None:
            raise RefusedRequest(404, f"the job {job.id} has not begun")
        return run

    def _places(self) -> dict[str, int]:
        return {job.id: place for place, job in enumerate(self._queue.waiting(), 1)}

    def _view(self, job: Job) -> JobView:
        return self._views.job(job, self._places().get(job.id))


_SAID = {
    JobState.FINISHED: "has finished",
    JobState.STOPPED: "was stopped",
    JobState.FAILED: "has failed",
}


def _json(view: BaseModel, status: int = 200) -> web.Response:
    text = view.model_dump_json()
    return web.Response(text=text, status=status, content_type="application/json")


async def _chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
    while chunk := await part.read_chunk(_CHUNK):
        yield chunk


async def _at_most(chunks: AsyncIterator[bytes], most: int) -> bytes:
    found = b""
    async for chunk in chunks:
        found += chunk
        if len(found) > most:
            raise RefusedRequest(413, f"a specification has at most {most} bytes")
    return found


def _packed(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(folder, arcname="best")
    return buffer.getvalue()


@cache
def _plotly_text() -> str:
    text: str = get_plotlyjs()
    return text
