"""What an update of the page costs the service: `python -m benchmarks.page`.

Fifty jobs, one of them at work, with five hundred trials; CPU milliseconds of the service and of
the client that asks, which share a process here. Where playwright and a Chromium are, its table of
trials is scrolled in that: milliseconds from frame to frame, trials ending meanwhile.
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

from search.service.app import Service, ServiceOptions
from search.service.job_queue import JobQueue, ProcessStatus
from search.service.jobs import Job, JobState, JobStore
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
from serving.config import ServerConfig

FRAMES = "a frame of scrolling, ms on the clock"
#: From the top of the table to its end, so far at each frame; answers the times of the frames.
SCROLL = """async () => {
  const box = document.querySelector("table").closest(".scroll"), times = [];
  while (box.scrollTop + box.clientHeight < box.scrollHeight - 1) {
    box.scrollTop += 60;
    times.push(await new Promise(requestAnimationFrame));
  }
  return times;
}"""


class _Nothing:
    """Runs no job: these only lie there."""

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


def _job(store: JobStore, trials: int, is_over: bool = False) -> tuple[Job, Run]:
    data = {"name": "model", "search": {"trials": 1000, "time_budget_s": None}}
    job = store.add(store.new_folder(), "model", data)
    job.change(state=JobState.RUNNING, started_s=time.time(), attempt=1)
    run = Run(job.folder / "runs" / "model")
    run.folder.mkdir(parents=True)
    (run.folder / "spec.yaml").write_text(yaml.safe_dump(data))
    for number in range(trials):
        _measured(job, run, number)
    if is_over:
        job.change(state=JobState.FINISHED, ended_s=time.time())
    return job, run


def _measured(job: Job, run: Run, number: int) -> None:
    result, recorder = _result(number), EventObserver(job.events.record)
    recorder.started(TrialRequest(number, result.origin, result.config))
    recorder.phase(number, "bracketing", 20.0)
    run.append(result)
    recorder.finished(result, result)


async def _frames(home: str, trials: int, measured: Callable[[], None]) -> list[float]:
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = await browser.new_page(viewport={"width": 1280, "height": 900})
        await page.goto(home)
        await page.get_by_role("row").nth(trials).wait_for()
        await page.wait_for_timeout(1000)

        async def go_on() -> None:
            while True:
                measured()
                await asyncio.sleep(1.0)

        others = asyncio.create_task(go_on())
        found = await page.evaluate(SCROLL)
        others.cancel()
        await browser.close()
    return [after - before for before, after in pairwise(found)]


async def _costs(jobs: int, trials: int, times: int) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        store = JobStore(Path(folder))
        for _ in range(jobs - 1):
            _job(store, 30, is_over=True)
        job, run = _job(store, trials)
        service = Service(store, JobQueue(store, _Nothing()), ServiceOptions((Path(folder),), None))
        found: dict[str, list[float]] = {}
        async with TestClient(TestServer(service.app())) as client:

            async def get(path: str) -> None:
                answer = await client.get(path)
                assert answer.status == 200
                await answer.read()

            async def cost(name: str, work: Callable[[], Awaitable[None]]) -> None:
                await work()
                for _ in range(times):
                    _measured(job, run, len(run.results()))
                    began = time.process_time()
                    await work()
                    found.setdefault(name, []).append(1000 * (time.process_time() - began))

            here = f"/v1/jobs/{job.id}"
            await cost("all jobs, every 2 s", lambda: get("/v1/jobs"))
            await cost("a job, after each trial", lambda: get(here))
            await cost("its trials, when it is opened", lambda: get(f"{here}/trials"))
            if find_spec("playwright") and shutil.which("chromium"):
                found[FRAMES] = await _frames(
                    str(client.make_url(f"/#/jobs/{job.id}")),
                    trials,
                    lambda: _measured(job, run, len(run.results())),
                )
    return found


def main(
    jobs: Annotated[int, typer.Option(min=1)] = 50,
    trials: Annotated[int, typer.Option(min=1, help="of one of the jobs")] = 500,
    times: Annotated[int, typer.Option(min=1, help="each is asked for")] = 50,
) -> None:
    """Print what each kind of request costs after another trial has ended."""
    table = Table(title=f"{jobs} jobs, {trials} trials: CPU ms a request", box=None)
    for name in ("request", "median", "most"):
        table.add_column(name, justify="left" if name == "request" else "right")
    for name, costs in asyncio.run(_costs(jobs, trials, times)).items():
        table.add_row(name, f"{median(costs):.1f}", f"{max(costs):.1f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
