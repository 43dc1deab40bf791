"""The job and the run that a request names."""

from __future__ import annotations

from aiohttp import web

from search.service.errors import RequestError
from search.service.jobs import Job, JobStore
from search.study.run_folder import Run


def requested_job(store: JobStore, request: web.Request) -> Job:
    """Return the job in a request's path.

    Raises:
        RequestError: there is none.
    """
    job = store.get(request.match_info["id"])
    if job is None:
        raise RequestError(404, f"there is no job {request.match_info['id']!r}")
    return job


def run_of(job: Job) -> Run:
    """Return the run of a job.

    Raises:
        RequestError: the job has not started.
    """
    run = job.run()
    if run is None:
        raise RequestError(404, f"the job {job.id} has not started")
    return run
