"""Measure the cost of the page's requests: `python -m benchmarks.page`.

Fifty jobs, one of them running, with 500 trials. Prints the CPU milliseconds per request of the
service and its client, which share a process. With playwright and Chromium installed, it also
scrolls the table of trials while trials end, and prints the milliseconds between frames.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
import yaml
from aiohttp.test_utils import TestClient, TestServer
from rich.console import Console
from rich.table import Table

from search.service.app import Service
from search.service.job_queue import JobQueue, ProcessStatus
from search.service.jobs import Job, JobState, JobStore
from search.service.options import ServiceOptions
from search.study.observer import EventObserver
from search.study.run_folder import Run
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import (
    LatencyRecord,
    RateRecord,
    TimingRecord,
    TrialResult,
    TrialState,
)
from serving.configuration.config import ServerConfig

FRAMES = "a frame of scrolling, elapsed ms"
#: Scrolls the table of trials by 60 pixels per frame to its end; returns the frames' times, ms.
SCROLL = """async () => {
  const box = document.querySelector(".scroll"), times = [];
  while (box.scrollTop + box.clientHeight < box.scrollHeight - 1) {
    box.scrollTop += 60;
    times.push(await new Promise(requestAnimationFrame));
  }
  return times;
}"""


class _IdleRunner:
    """Reports every job as running, without a process."""

    def submit(self, job: Job) -> None: ...

    def status(self, job: Job) -> ProcessStatus:
        return ProcessStatus.RUNNING

    def kill(self, job: Job) -> None: ...


def _result(number: int) -> TrialResult:
    config = ServerConfig(workers=1 + number % 4, batch_size=1 + number, mkl_threads=2)
    return TrialResult(
        number=number,
        origin=TrialOrigin.SAMPLED,
        config=config,
        state=TrialState.COMPLETE,
        rate=RateRecord(sustained_rps=5.0 + number % 100),
        latency=LatencyRecord(p99_s=0.3),
        timing=TimingRecord(40.0, {"start": 8.0, "warm-up": 5.0, "bracketing": 27.0}),
    )


def _create_job(store: JobStore, trials: int, is_over: bool = False) -> tuple[Job, Run]:
    data = {"name": "model", "search": {"trials": 1000, "time_budget_s": None}}
    job = store.add(store.new_folder(), "model", data)
    job.change(state=JobState.RUNNING, started_s=time.time(), attempt=1)
    run = Run(job.folder / "runs" / "model")
    run.folder.mkdir(parents=True)
    (run.folder / "spec.yaml").write_text(yaml.safe_dump(data))
    for number in range(trials):
        _record_trial(job, run, number)
    if is_over:
        job.change(state=JobState.FINISHED, ended_s=time.time())
    return job, run


def _record_trial(job: Job, run: Run, number: int) -> None:
    result, recorder = _result(number), EventObserver(job.events.record)
    recorder.started(TrialRequest(number, result.origin, result.config))
    recorder.phase(number, "bracketing", 20.0)
    run.append(result)
    recorder.finished(result, result)


async def _frame_times_ms(url: str, trials: int, end_trial: Callable[[], None]) -> list[float]:
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = await browser.new_page(viewport={"width": 1280, "height": 900})
        await page.goto(url)
        await page.get_by_role("row").nth(trials).wait_for()
        await page.wait_for_timeout(1000)

        async def end_trials() -> None:
            while True:
                end_trial()
                await asyncio.sleep(1.0)

        task = asyncio.create_task(end_trials())
        times_ms = await page.evaluate(SCROLL)
        task.cancel()
        await browser.close()
    return [after - before for before, after in pairwise(times_ms)]


async def _costs_ms(jobs: int, trials: int, repetitions: int) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        store = JobStore(Path(folder))
        for _ in range(jobs - 1):
            _create_job(store, 30, is_over=True)
        job, run = _create_job(store, trials)
        service = Service(
            store, JobQueue(store, _IdleRunner()), ServiceOptions((Path(folder),), None)
        )
        costs_ms: dict[str, list[float]] = {}
        async with TestClient(TestServer(service.app())) as client:

            async def get(path: str) -> None:
                response = await client.get(path)
                assert response.status == 200
                await response.read()

            async def measure(name: str, request: Callable[[], Awaitable[None]]) -> None:
                await request()
                for _ in range(repetitions):
                    _record_trial(job, run, len(run.results()))
                    start_s = time.process_time()
                    await request()
                    costs_ms.setdefault(name, []).append(1000 * (time.process_time() - start_s))

            job_path = f"/v1/jobs/{job.id}"
            await measure("all jobs, every 2 s", lambda: get("/v1/jobs"))
            await measure("a job, after each trial", lambda: get(job_path))
            await measure(
                "the trials of a job, when it is opened", lambda: get(f"{job_path}/trials")
            )
            if find_spec("playwright") and shutil.which("chromium"):
                costs_ms[FRAMES] = await _frame_times_ms(
                    str(client.make_url(f"/#/jobs/{job.id}")),
                    trials,
                    lambda: _record_trial(job, run, len(run.results())),
                )
    return costs_ms


def main(
    jobs: Annotated[int, typer.Option(min=1, help="Number of jobs.")] = 50,
    trials: Annotated[int, typer.Option(min=1, help="Trials of the running job.")] = 500,
    times: Annotated[int, typer.Option(min=1, help="Repetitions of each request.")] = 50,
) -> None:
    """Print the cost of each kind of request after a trial has ended."""
    table = Table(title=f"{jobs} jobs, {trials} trials: CPU ms per request", box=None)
    for name in ("request", "median", "maximum"):
        table.add_column(name, justify="left" if name == "request" else "right")
    for name, costs_ms in asyncio.run(_costs_ms(jobs, trials, times)).items():
        table.add_row(name, f"{median(costs_ms):.1f}", f"{max(costs_ms):.1f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
