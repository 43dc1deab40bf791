"""Screenshots of every view: `python -m tests.browser.screenshots FOLDER JOB RUN`.

JOB is the folder of a finished job of a service, RUN that of another finished run. They are shown
by a service whose jobs have no processes. Its running job is a copy of JOB that ends at a window of
the last trial of its search.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from aiohttp.test_utils import TestServer
from PIL import Image
from playwright.async_api import Browser, Page, async_playwright

from search.report.summary import write_report
from search.service.app import Service, ServiceOptions
from search.service.job_queue import JobQueue, ProcessStatus
from search.service.jobs import Job, JobState, JobStore
from search.study.reading import read_outcome
from search.study.run_folder import Run

WIDTHS_PX = (1280, 400)
SCHEMES = ("light", "dark")
#: Colours of an image, and the height that is kept of it.
COLORS, MAX_HEIGHT_PX = 64, 2400
CHROMIUM = shutil.which("chromium")
#: Seconds that plots need to draw what has been loaded.
SETTLE_S = 1.0
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


def copy_job(store: JobStore, source: Job, name: str) -> Job:
    """Copy a finished job of another service."""
    folder = store.new_folder()
    shutil.copytree(source.folder, folder, dirs_exist_ok=True)
    job = Job(folder)
    job.change(name=name)
    return job


def job_of_run(store: JobStore, run: Run, name: str) -> Job:
    """Add a job that ended with a copy of a run."""
    folder = store.new_folder()
    shutil.copytree(run.folder, folder / "runs" / run.folder.name)
    job = store.add(folder, name, run.specified())
    started_s = run.folder.stat().st_mtime - 345
    job.change(
        state=JobState.FINISHED,
        created_s=started_s,
        started_s=started_s,
        ended_s=run.folder.stat().st_mtime,
        reason=read_outcome(run).reason,
    )
    return job


def live_job(store: JobStore, source: Job, name: str) -> Job:
    """Copy a finished job as it was at the last window of the last trial of its search."""
    job = copy_job(store, source, name)
    run = job.run()
    assert run is not None
    *known, last = run.results()
    run.rebuild(known)
    (run.folder / "study.db").unlink()
    shutil.rmtree(run.folder / "confirm", ignore_errors=True)
    for path in job.folder.glob("end.json"):
        path.unlink()
    events = job.events.read(max_bytes=1 << 30)
    windows = [
        index
        for index, event in enumerate(events)
        if event.kind == "window" and event.data["number"] == last.number
    ]
    kept = [event for event in events[: windows[-1] + 1] if event.kind != "state"]
    delay_s = time.time() - kept[-1].time_s
    lines = [json.loads(line) for line in job.events.path.read_text().splitlines()]
    version = {key: value for key, value in lines[0].items() if key == "format_version"}
    job.events.path.write_text(
        "".join(
            json.dumps(
                {**version, "kind": e.kind, "time_s": e.time_s + delay_s, "data": dict(e.data)}
            )
            + "\n"
            for e in kept
        )
    )
    started_s = kept[0].time_s + delay_s
    job.change(state=JobState.RUNNING, ended_s=None, reason=None, created_s=started_s)
    job.change(started_s=started_s, queued_s=started_s)
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
    """Cut the images in a folder to a height, and reduce their colours."""
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            cut = image.convert("RGB").crop((0, 0, image.width, min(image.height, max_height_px)))
        cut.quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)


async def take(folder: Path, source: Job, other: Run, max_height_px: int) -> None:
    """Take every screenshot."""
    async with AsyncExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = JobStore(root)
        run = source.run()
        assert run is not None
        earlier = job_of_run(store, other, "bundled-model, before")
        finished = copy_job(store, source, "bundled-model")
        live = live_job(store, source, "bundled-model, again")
        queued = queued_job(store, run, "image-classifier")
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
        await shoot_page(browser, str(server.make_url("/")), views, folder)
        report = finished.run()
        assert report is not None
        write_report(read_outcome(report))
        await shoot_report(browser, report.folder / "report.html", folder)
        await browser.close()
    reduce(folder, max_height_px)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments and take the screenshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the images")
    parser.add_argument("job", type=Path, help="folder of a finished job of a service")
    parser.add_argument("run", type=Path, help="folder of another finished run")
    parser.add_argument("--height", type=int, default=MAX_HEIGHT_PX, help="pixels to keep")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(take(options.folder, Job(options.job), Run(options.run), options.height))


if __name__ == "__main__":
    main()
