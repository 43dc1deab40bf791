"""Screenshots of every view: `python -m tests.browser.screenshots FOLDER RUN EARLIER_RUN`.

The two finished runs are shown by a service whose jobs have no processes. Its running job is a copy
of RUN that ends at the last window with an offered rate.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from unittest import mock

from aiohttp.test_utils import TestServer
from PIL import Image, ImageChops
from playwright.async_api import Browser, Page, async_playwright

from search.report.summary import write_report
from search.service.app import Service
from search.service.job_queue import JobQueue, ProcessStatus
from search.service.jobs import Job, JobState, JobStore
from search.service.options import ServiceOptions
from search.study.budget import INTERRUPTED
from search.study.observer import EventObserver
from search.study.progress import Progress, so_far, trying
from search.study.reading import read_outcome
from search.study.run_folder import Run
from search.trial.observation import WindowSummary
from search.trial.request import TrialRequest

WIDTHS_PX = (1280, 400)
SCHEMES = ("light", "dark")
#: Colours of an image, and the height that is kept of it.
COLORS, MAX_HEIGHT_PX = 64, 2000
MARGIN_PX = 24
#: What images show instead of the folder that the runs' folder is in.
CHECKOUT = "/home/user/servetune"
CHROMIUM = shutil.which("chromium")
#: Seconds that plots need to draw what has been loaded.
SETTLE_S = 0.6
#: The plan, and the last of the plots that the service draws.
PLAN = "section:has(form.plan)"
LAST_PLOT = "figure:has-text('Seconds of each trial') svg.main-svg"


class EndlessRunner:
    """A `JobRunner` whose jobs run until the service ends."""

    def submit(self, job: Job) -> None:
        """Start nothing."""

    def status(self, job: Job) -> ProcessStatus:
        """Return that the job runs."""
        return ProcessStatus.RUNNING

    def kill(self, job: Job) -> None:
        """End nothing."""


@dataclass(frozen=True)
class View:
    """A view to show.

    Attributes:
        address: part of the page's address after "#".
        ready: what is visible when the view is complete, a CSS selector.
        fields: labels of fields, and what to fill in.
        click: label of a button to press.
        result: what is visible after that, a CSS selector.
        section: what to keep of the page, a CSS selector; None for all of it.
    """

    address: str
    ready: str
    fields: tuple[tuple[str, str], ...] = ()
    click: str | None = None
    result: str | None = None
    section: str | None = None


def job_of_run(store: JobStore, run: Run, name: str) -> Job:
    """Add a job that ended with a copy of a run."""
    folder = store.new_folder()
    copy = folder / "runs" / run.folder.name
    shutil.copytree(run.folder, copy)
    for path in (*copy.rglob("config.properties"), *copy.rglob("torchserve.log")):
        path.write_text(path.read_text().replace(str(run.folder.parents[1]), CHECKOUT))
    job = store.add(folder, name, run.specified())
    created = datetime.fromisoformat(run.recorded()["created"]).timestamp()
    reason = read_outcome(run).reason
    job.change(
        state=JobState.STOPPED if reason == INTERRUPTED else JobState.FINISHED,
        created_s=created,
        started_s=created,
        ended_s=max(path.stat().st_mtime for path in run.folder.rglob("measurements.json")),
        reason=reason,
    )
    return job


def live_job(store: JobStore, run: Run, name: str) -> Job:
    """Add a job that is at the last window of the last trial with an offered rate."""
    job = job_of_run(store, run, name)
    copy = job.run()
    assert copy is not None
    results = run.results()
    last = [
        r for r in results if any(w["schedule"].get("rate_rps") for w in run.windows(r.number))
    ][-1]
    known = [result for result in results if result.number < last.number]
    copy.rebuild(known)
    (copy.folder / "study.db").unlink()
    shutil.rmtree(copy.folder / "confirm", ignore_errors=True)
    space = read_outcome(run).space
    assert space is not None
    spent_s = sum(result.duration_s for result in known)
    left_s = (run.spec().search.time_budget_s or spent_s) - spent_s
    request = TrialRequest(last.number, last.origin, last.config)
    observer = EventObserver(job.events.record)
    observer.started(request)
    observer.progress(Progress(trying(request, known, space), so_far(known), left_s))
    rate_rps = 0.0
    for window in run.windows(last.number):
        offered_rps = window["schedule"].get("rate_rps")
        rate_rps = offered_rps or window["goodput_rps"]
        failed = window["scheduled"] - window["succeeded"]
        p99_s = window["latency_s"].get("p99")
        summary = WindowSummary(offered_rps, window["goodput_rps"], failed, p99_s)
        observer.window(last.number, summary)
    observer.phase(last.number, "verification", rate_rps)
    now = time.time()
    job.change(created_s=now - spent_s, started_s=now - spent_s, queued_s=now - spent_s)
    job.change(state=JobState.RUNNING, ended_s=None, reason=None)
    return job


def queued_job(store: JobStore, run: Run, name: str) -> Job:
    """Add a job that waits."""
    return store.add(store.new_folder(), name, run.specified())


async def shoot_page(browser: Browser, home: str, views: dict[str, View], folder: Path) -> None:
    """Take the screenshots of the views of the page."""
    for scheme in SCHEMES:
        for width in WIDTHS_PX:
            size = {"width": width, "height": 900}
            page = await browser.new_page(viewport=size, color_scheme=scheme)
            for name, view in views.items():
                await page.goto("about:blank")
                await page.goto(f"{home}#{view.address}")
                await page.locator(view.ready).first.wait_for()
                for label, value in view.fields:
                    await page.get_by_label(label).fill(value)
                if view.click is not None:
                    await page.get_by_role("button", name=view.click).click()
                if view.result is not None:
                    await page.locator(view.result).first.wait_for()
                await asyncio.sleep(SETTLE_S)
                await save(page, folder / f"{name}-{scheme}-{width}.png", view.section)
            await page.close()


async def shoot_report(browser: Browser, path: Path, folder: Path) -> None:
    """Take the screenshots of a report."""
    for scheme in SCHEMES:
        for width in WIDTHS_PX:
            size = {"width": width, "height": 900}
            page = await browser.new_page(viewport=size, color_scheme=scheme)
            await page.goto(path.as_uri())
            await page.wait_for_selector(".plot svg.main-svg")
            await asyncio.sleep(SETTLE_S)
            await save(page, folder / f"report-{scheme}-{width}.png", None)
            await page.close()


async def save(page: Page, path: Path, section: str | None) -> None:
    """Save a screenshot with few colours."""
    if section is None:
        await page.screenshot(path=path, full_page=True)
    else:
        await page.locator(section).screenshot(path=path)


def reduce(folder: Path, max_height_px: int) -> None:
    """Cut the images in a folder to their content and a height, and reduce their colours."""
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            full = image.convert("RGB")
        background = Image.new("RGB", full.size, full.getpixel((0, full.height - 1)))
        box = ImageChops.difference(full, background).getbbox() or (0, 0, *full.size)
        height = min(box[3] + MARGIN_PX, full.height, max_height_px)
        cut = full.crop((0, 0, full.width, height))
        # The default method drops the colours of small areas, such as those of a plot's points.
        method = Image.Quantize.MAXCOVERAGE
        cut.quantize(COLORS, method, dither=Image.Dither.NONE).save(path, optimize=True)


async def take(folder: Path, run: Run, other: Run, max_height_px: int, only: str | None) -> None:
    """Take every screenshot, or those of one view."""
    async with AsyncExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        argument = property(lambda run: f"runs/{run.folder.name}")
        stack.enter_context(mock.patch.object(Run, "argument", argument))
        store = JobStore(root)
        earlier = job_of_run(store, other, "bundled-model, before")
        finished = job_of_run(store, run, "bundled-model")
        live = live_job(store, run, "bundled-model, again")
        queued = queued_job(store, run, "bundled-model, later")
        service = Service(store, JobQueue(store, EndlessRunner()), ServiceOptions((root,), None))
        server = TestServer(service.app())
        await server.start_server()
        stack.push_async_callback(server.close)
        playwright = await stack.enter_async_context(async_playwright())
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        best = read_outcome(run).chosen
        number = best.number if best else 0
        price = ("Price of a replica per hour", "0.34")
        mistakes = (("Trials, at most", "0"), ("p99 latency, at most (s)", "fast"))
        views = {
            "jobs": View("/", "table.jobs tbody tr"),
            "new-job": View("/new", "#spec", (("Name", "my-model"), ("Time (s)", "600"))),
            "field-errors": View("/new", "#spec", mistakes, result="[id='error-search.trials']"),
            "job-live": View(f"/jobs/{live.id}", LAST_PLOT),
            "job-queued": View(f"/jobs/{queued.id}", "#now"),
            "job": View(f"/jobs/{finished.id}", LAST_PLOT),
            "plan": View(
                f"/jobs/{finished.id}", LAST_PLOT, (price,), "Plan", "form.plan table", PLAN
            ),
            "trial": View(f"/jobs/{finished.id}/trials/{number}", "h2:has-text('Server log')"),
            "compare": View(f"/compare/{earlier.id}/{finished.id}", "figure svg.main-svg"),
        }
        views = {name: view for name, view in views.items() if only in (None, name)}
        await shoot_page(browser, str(server.make_url("/")), views, folder)
        report = finished.run()
        if report is not None and only in (None, "report"):
            write_report(read_outcome(report))
            await shoot_report(browser, report.folder / "report.html", folder)
        await browser.close()
    reduce(folder, max_height_px)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments and take the screenshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the images")
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("earlier_run", type=Path, help="folder of the run to compare it with")
    parser.add_argument("--height", type=int, default=MAX_HEIGHT_PX, help="pixels to keep")
    parser.add_argument("--only", help="name of the only view to show")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(
        take(
            options.folder, Run(options.run), Run(options.earlier_run), options.height, options.only
        )
    )


if __name__ == "__main__":
    main()
