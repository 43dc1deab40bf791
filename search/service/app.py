"""The application: its handlers, the files of the web page, the queue that runs beside them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from search.report.plotly_library import plotly_text
from search.service import metrics
from search.service.access import Access
from search.service.guard import guard_for
from search.service.job_handlers import JobHandlers
from search.service.job_queue import JobQueue
from search.service.job_views import JobViews
from search.service.jobs import JobStore
from search.service.metrics import JobMetrics
from search.service.openapi import document
from search.service.options import ServiceOptions
from search.service.reader_thread import ReaderThread
from search.service.result_handlers import ResultHandlers
from search.service.run_results import RunResults

STATIC = Path(__file__).parent / "static"
#: An idle connection is closed after this time, seconds.
KEEP_ALIVE_S = 30.0
_PAGE_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; object-src 'none'"
)


class Service:
    """The HTTP API and the web page, on top of the jobs and their queue."""

    def __init__(self, store: JobStore, queue: JobQueue, options: ServiceOptions):
        results = RunResults()
        views = JobViews(results, options.links)
        self._queue, self._options = queue, options
        self._metrics = JobMetrics(store, results)
        self._reader = ReaderThread()
        self._jobs = JobHandlers(store, queue, options, views, self._reader)
        self._results = ResultHandlers(store, results, self._reader)

    def app(self) -> web.Application:
        """Return the application; the queue runs as long as it does."""
        access = Access(self._options.names, self._options.token)
        app = web.Application(
            middlewares=[guard_for(access)], client_max_size=self._options.max_request_bytes
        )
        app.add_routes(
            [
                web.get("/", self._show_page),
                web.get("/metrics", self._show_metrics),
                web.get("/v1/openapi.json", self._show_openapi),
                *self._jobs.routes(),
                *self._results.routes(),
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

    async def _show_page(self, request: web.Request) -> web.StreamResponse:
        text = (STATIC / "index.html").read_text()
        headers = {"Content-Security-Policy": _PAGE_POLICY}
        return web.Response(text=text, content_type="text/html", headers=headers)

    async def _send_plotly(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text=plotly_text(), content_type="text/javascript")

    async def _show_openapi(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(document())

    async def _show_metrics(self, request: web.Request) -> web.StreamResponse:
        body = await self._reader.call(self._metrics.text)
        return web.Response(body=body, headers={"Content-Type": metrics.CONTENT_TYPE})
