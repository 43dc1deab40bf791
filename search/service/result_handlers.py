"""Handlers of the API that return the results of jobs."""

from __future__ import annotations

import asyncio
import tarfile
import tempfile
from pathlib import Path
from typing import IO

from aiohttp import web

from search.service.answers import figures_view, pareto_view, plan_view
from search.service.errors import RequestError
from search.service.event_stream import EventStreams
from search.service.jobs import JobState, JobStore
from search.service.reader_thread import ReaderThread
from search.service.requested import requested_job, run_of
from search.service.responses import HEADERS, json_response
from search.service.run_results import RunResults
from search.service.sending import send_file
from search.service.slots import Slots
from search.service.trial_views import trial_detail_view, trial_view
from search.service.views import TrialsView
from search.study.run_folder import Run

#: Number of downloads that are sent at the same time.
_MAX_DOWNLOADS = 8
_REPORT_POLICY = "sandbox allow-scripts; frame-ancestors 'none'"


class ResultHandlers:
    """The handlers, on top of the jobs and the files of their runs."""

    def __init__(self, store: JobStore, results: RunResults, reader: ReaderThread):
        self._store, self._results, self._reader = store, results, reader
        self._streams = EventStreams()
        self._downloads = Slots(_MAX_DOWNLOADS, "downloads are sent")
        self._files_lock = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the handlers."""
        return [
            web.get("/v1/jobs/{id}/trials", self._list_trials),
            web.get("/v1/jobs/{id}/trials/{number}", self._show_trial),
            web.get("/v1/jobs/{id}/events", self._stream_events, allow_head=False),
            web.get("/v1/jobs/{id}/figures", self._show_figures),
            web.get("/v1/jobs/{id}/pareto", self._show_pareto),
            web.get("/v1/jobs/{id}/plan", self._show_plan),
            web.get("/v1/jobs/{id}/report", self._show_report),
            web.get("/v1/jobs/{id}/best.tar.gz", self._download_best),
        ]

    def _run(self, request: web.Request) -> Run:
        return run_of(requested_job(self._store, request))

    async def _list_trials(self, request: web.Request) -> web.StreamResponse:
        run = requested_job(self._store, request).run()
        results = await self._reader.call(self._results.read, run)
        return json_response(TrialsView(trials=[trial_view(result) for result in results]))

    async def _show_trial(self, request: web.Request) -> web.StreamResponse:
        run = self._run(request)
        number = request.match_info["number"]
        found = await self._reader.call(self._results.read, run)
        results = {str(result.number): result for result in found}
        if number not in results:
            raise RequestError(404, f"the job has no finished trial {number!r}")
        return json_response(await self._reader.call(trial_detail_view, run, results[number]))

    async def _stream_events(self, request: web.Request) -> web.StreamResponse:
        return await self._streams.send(requested_job(self._store, request), request, HEADERS)

    async def _show_figures(self, request: web.Request) -> web.StreamResponse:
        return json_response(await self._reader.call(figures_view, self._run(request)))

    async def _show_pareto(self, request: web.Request) -> web.StreamResponse:
        return json_response(await self._reader.call(pareto_view, self._run(request)))

    async def _show_plan(self, request: web.Request) -> web.StreamResponse:
        view = await self._reader.call(plan_view, self._run(request), request.query)
        return json_response(view)

    async def _show_report(self, request: web.Request) -> web.StreamResponse:
        from search.report.summary import html_report, markdown_report
        from search.study.reading import read_outcome

        job = requested_job(self._store, request)
        run = run_of(job)
        suffix = request.query.get("format", "html")
        if suffix not in ("html", "md"):
            raise RequestError(400, f"format must be html or md (got {suffix!r})")

        build = html_report if suffix == "html" else markdown_report
        path = run.folder / f"report.{suffix}"
        if job.record().state is JobState.FINISHED and path.is_file():
            text = await self._reader.call(path.read_text)
        else:
            async with self._files_lock:
                text = await self._reader.call(lambda: build(read_outcome(run)))
        content_type = "text/html" if suffix == "html" else "text/markdown"
        headers = {"Content-Security-Policy": _REPORT_POLICY}
        return web.Response(text=text, content_type=content_type, headers=headers)

    async def _download_best(self, request: web.Request) -> web.StreamResponse:
        job = requested_job(self._store, request)
        run, record = run_of(job), job.record()
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
                file = await self._reader.call(pack)
            if file is None:
                raise RequestError(
                    404, "the job has no files for production: no trial is chosen yet"
                )
            name = f'attachment; filename="{run.name}-best.tar.gz"'
            headers = {"Content-Type": "application/gzip", "Content-Disposition": name}
            return await send_file(file, request, {**HEADERS, **headers})


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
