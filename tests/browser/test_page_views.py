"""Each view of the page in a real browser, over a service whose jobs have no processes."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.service.job_queue import JobQueue
from search.service.jobs import Job, JobState, JobStore
from search.study.observer import EventObserver
from search.study.reading import open_store
from search.trial.observation import WindowSummary
from search.trial.result import TrialState
from serving.errors import DemoError
from tests.results import result_for
from tests.search.service.conftest import (
    TOKEN,
    Client,
    FakeRunner,
    submit,
    wait_for_state,
    wait_until_running,
    write_run,
)

async_api = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH"),
]
async_api.expect.set_options(timeout=20_000)
Page = Any


@pytest.fixture
async def page(client: Client) -> AsyncIterator[Page]:
    """A page with the token, which fails the test for an error or a request to another host."""
    home = str(client.make_url("/"))
    errors: list[str] = []
    async with async_api.async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda r: errors.append(r.url) if not own(r.url, home) else None)
        await page.add_init_script(f"sessionStorage.setItem('token', '{TOKEN}')")
        await page.goto(home)
        yield page
        await browser.close()
    assert errors == []


def own(url: str, home: str) -> bool:
    return url.startswith((home, "data:", "blob:"))


async def shoot(page: Page, name: str) -> None:
    """Check that nothing hangs out of the page at both widths; keep images where they are wanted."""
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        for width in (1280, 400):
            await page.set_viewport_size({"width": width, "height": 900})
            await page.wait_for_timeout(300)
            overflow = await page.evaluate(
                "document.documentElement.scrollWidth - window.innerWidth"
            )
            assert overflow <= 0, f"{name} at {width} pixels scrolls sideways"
            if folder := os.environ.get("SCREENSHOTS"):
                path = Path(folder) / f"{name}-{scheme}-{width}.png"
                await page.screenshot(path=path, full_page=True)
    await page.emulate_media(color_scheme="light")
    await page.set_viewport_size({"width": 1280, "height": 900})


async def finished_job(
    client: Client,
    store: JobStore,
    runner: FakeRunner,
    spec: dict[str, Any],
    rates: tuple[float, ...] = (5.0, 20.0),
) -> str:
    job = await submit(client, store, spec)
    await wait_until_running(job, runner)
    write_run(job, rates)
    runner.end(job)
    await wait_for_state(job, JobState.FINISHED)
    return job.id


def add_trial(job: Job, rate_rps: float, p99_s: float = 0.2) -> None:
    """Let a running job finish another trial."""
    run = job.run()
    assert run is not None
    study = open_store(run, run.spec())
    trial, request = study.ask() or pytest.fail("the study proposes no trial")
    state = TrialState.COMPLETE
    result = result_for(request, rate_rps, state=state, p99_s=p99_s, duration_s=3.0)
    run.append(study.tell(trial, result))
    EventObserver(job.events.record).finished(result, study.best)


async def test_form_and_specification_follow_each_other(page: Page) -> None:
    await page.get_by_role("link", name="New job").click()
    text = page.get_by_label("Specification")
    await text.fill("# for the shop\nname: a # short\nmodel: {archive: a.mar, requests: r.jsonl}\n")
    await async_api.expect(page.get_by_label("Name")).to_have_value("a")
    await page.get_by_label("Time (s)").fill("90")
    value = await text.input_value()
    assert "time_budget_s: 90" in value
    assert "# for the shop" in value and "# short" in value, "comments stay"
    await page.get_by_label("Time (s)").fill("")
    assert "time_budget_s" not in await text.input_value()
    await shoot(page, "new-job")


async def test_form_shows_an_error_at_its_field(page: Page) -> None:
    await page.get_by_role("link", name="New job").click()
    trials = page.get_by_label("Trials, at most")
    await trials.fill("0")
    note = page.locator("[id='error-search.trials']")
    await async_api.expect(note).to_have_text("must be at least 1 (got 0)")
    await async_api.expect(trials).to_have_attribute("aria-invalid", "true")
    await trials.fill("3")
    await async_api.expect(note).to_be_hidden()
    await page.get_by_role("button", name="Start the job").click()
    await async_api.expect(page.locator("[id='error-model.archive']")).to_be_visible()
    await shoot(page, "field-errors")


async def test_form_has_the_objective_its_rate_and_the_limits(page: Page) -> None:
    await page.get_by_role("link", name="New job").click()
    text = page.get_by_label("Specification")
    objective = page.get_by_label("Objective", exact=True)
    await objective.select_option(label="lowest latency at a rate")
    assert "objective: latency" in await text.input_value()
    note = page.locator("[id='error-goal.for_rps']")
    await async_api.expect(note).to_contain_text("is missing; the objective `latency`")
    await page.get_by_label("Rate to serve (rps)").fill("120")
    await async_api.expect(note).to_be_hidden()
    limits = {
        "p99 latency, at most (s)": ("p99_s", "0.5"),
        "p95 latency, at most (s)": ("p95_s", "0.25"),
        "Memory, at most (MiB)": ("memory_mb", "2048"),
        "Workers, at most": ("workers", "3"),
    }
    for label, (_, value) in limits.items():
        await page.get_by_label(label).fill(value)
    written = yaml.safe_load(await text.input_value())["goal"]
    assert written["for_rps"] == 120
    assert {k: str(v) for k, v in written["limits"].items()} == dict(limits.values())
    await page.get_by_label("Workers, at most").fill("none")
    await async_api.expect(page.locator("[id='error-goal.limits.workers']")).to_be_visible()
    await text.fill(
        "name: a\nmodel: {archive: a.mar, requests: r.jsonl}\n"
        "goal: {objective: footprint, for_rps: 80, limits: {p99_s: 0.75}}\n"
    )
    await async_api.expect(objective).to_have_value("footprint")
    await async_api.expect(page.get_by_label("Rate to serve (rps)")).to_have_value("80")
    await async_api.expect(page.get_by_label("p99 latency, at most (s)")).to_have_value("0.75")
    await async_api.expect(page.get_by_label("Workers, at most")).to_have_value("")
    await async_api.expect(page.locator("[id='error-goal.limits.workers']")).to_be_hidden()
    await objective.select_option(label="highest rate")
    assert yaml.safe_load(await text.input_value())["goal"]["objective"] == "rate"


@pytest.mark.parametrize(
    ("label", "path", "value", "message"),
    [
        ("Headroom (share)", "goal.headroom", "2", "at most 0.95"),
        ("p99 latency, at most (s)", "goal.limits.p99_s", "-1", "greater than 0"),
        ("p99 latency, at most (s)", "goal.limits.p99_s", "fast", "number"),
        ("Memory, at most (MiB)", "goal.limits.memory_mb", "0", "0"),
        ("Time (s)", "search.time_budget_s", "soon", "number"),
    ],
)
async def test_form_shows_each_mistake_at_its_field(
    page: Page, label: str, path: str, value: str, message: str
) -> None:
    await page.get_by_role("link", name="New job").click()
    field = page.get_by_label(label)
    await field.fill(value)
    await async_api.expect(page.locator(f"[id='error-{path}']")).to_contain_text(message)
    await async_api.expect(field).to_have_attribute("aria-invalid", "true")
    await async_api.expect(field).to_be_focused()
    await async_api.expect(page.locator("#form-errors")).to_be_empty()


async def test_form_refuses_to_change_a_text_that_is_no_yaml(page: Page) -> None:
    await page.get_by_role("link", name="New job").click()
    text = page.get_by_label("Specification")
    broken = "name: [a\nmodel: {archive: a.mar"
    await text.fill(broken)
    await page.get_by_label("Time (s)").fill("60")
    await page.get_by_text("correct the specification first").wait_for()
    assert await text.input_value() == broken, "what was written stays"


async def test_form_asks_for_the_token_before_it_is_filled_in(page: Page, client: Client) -> None:
    other = await page.context.browser.new_page()
    await other.goto(f"{client.make_url('/')}#/new")
    await other.get_by_label("Access token").fill(TOKEN)
    await other.keyboard.press("Enter")
    await other.get_by_label("Specification").wait_for()
    await other.close()


async def test_form_is_filled_with_the_bundled_model(
    page: Page, store: JobStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[Path] = []

    def specification(folder: Path) -> str:
        folders.append(folder)
        model = {"archive": str(root / "echo.mar"), "requests": str(root / "requests.jsonl")}
        return yaml.safe_dump({"name": "bundled-model", "model": model, "search": {"trials": 9}})

    monkeypatch.setattr("search.service.job_handlers.demo_specification", specification)
    await page.get_by_role("link", name="New job").click()
    await page.get_by_label("Model archive").set_input_files(root / "requests.jsonl")
    await page.get_by_role("button", name="Try it with the bundled model").click()
    start = page.get_by_role("button", name="Start the job")
    await async_api.expect(start).to_be_focused()
    await async_api.expect(page.get_by_label("Name")).to_have_value("bundled-model")
    await async_api.expect(page.get_by_label("Trials, at most")).to_have_value("9")
    await page.get_by_label("Time (s)").fill("120")
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name="bundled-model").wait_for()
    (job,) = store.all()
    assert folders == [store.demo_folder] and "time_budget_s: 120" in job.spec_path.read_text()
    assert not (job.folder / "uploads" / "archive").exists(), "the file chosen before is dropped"


async def test_form_reports_that_the_bundled_model_cannot_be_built(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path) -> str:
        raise DemoError("the bundled model needs transformers")

    monkeypatch.setattr("search.service.job_handlers.demo_specification", fail)
    await page.get_by_role("link", name="New job").click()
    button = page.get_by_role("button", name="Try it with the bundled model")
    await button.click()
    await page.get_by_text("the bundled model needs transformers").wait_for()
    await async_api.expect(button).to_be_enabled()


async def test_form_submits_a_job_with_its_files(
    page: Page,
    client: Client,
    store: JobStore,
    root: Path,
) -> None:
    await page.get_by_role("link", name="New job").click()
    await page.get_by_label("Name").fill("from-form")
    await page.get_by_label("Model archive").set_input_files(root / "echo.mar")
    await page.get_by_label("Requests").set_input_files(root / "requests.jsonl")
    assert "archive: echo.mar" in await page.get_by_label("Specification").input_value()
    await page.get_by_label("Trials, at most").fill("7")
    await page.get_by_role("button", name="Start the job").click()
    await page.get_by_role("heading", name="from-form").wait_for()
    (job,) = store.all()
    assert job.record().name == "from-form" and "trials: 7" in job.spec_path.read_text()
    assert (job.folder / "uploads" / "archive" / "echo.mar").is_file()


async def test_job_list_keeps_focus_sort_and_filter(
    page: Page,
    client: Client,
    store: JobStore,
    runner: FakeRunner,
    spec: dict[str, Any],
) -> None:
    first = await submit(client, store, {**spec, "name": "b-first"})
    await wait_until_running(first, runner)
    await submit(client, store, {**spec, "name": "a-second"})
    await submit(client, store, {**spec, "name": "other"})
    reason = page.get_by_text("queue position 1: waits until b-first ends")
    await reason.wait_for()
    await page.get_by_text("1 job is before it").wait_for()
    await shoot(page, "jobs")
    await page.get_by_label("Filter").fill("-")
    await page.get_by_role("button", name="job", exact=True).click()
    link = page.get_by_role("link", name="b-first")
    await link.focus()
    write_run(first)
    await page.get_by_role("cell", name="2 of 4").wait_for()
    await async_api.expect(link).to_be_focused()
    names = await page.locator("table.jobs tbody a").all_text_contents()
    assert names == sorted(names)
    await page.get_by_label("Filter").fill("other")
    await page.get_by_role("link", name="b-first").wait_for(state="detached")
    runner.end(first)
    await wait_for_state(first, JobState.FINISHED)
    await page.get_by_text("waits until a-second ends").wait_for()
    assert await page.locator("table.jobs tbody tr").count() == 1, "the filter stays"


async def test_running_job_shows_what_is_tried_and_keeps_focus(
    page: Page,
    client: Client,
    store: JobStore,
    runner: FakeRunner,
    spec: dict[str, Any],
) -> None:
    job = await submit(client, store, {**spec, "search": {"trials": 4, "time_budget_s": 600}})
    await wait_until_running(job, runner)
    await page.goto(f"{client.make_url('/')}#/jobs/{job.id}")
    await page.get_by_role("heading", name="small").wait_for()
    stop = page.get_by_role("button", name="Stop")
    await stop.focus()
    write_run(job)
    await page.get_by_text("trying larger batches").wait_for()
    await page.get_by_text("time left, about").wait_for()
    await page.locator("figcaption").first.wait_for()
    await async_api.expect(stop).to_be_focused()
    await page.get_by_label("Filter").fill("default")
    rows = page.locator("table tbody tr td:first-child a")
    await async_api.expect(rows).to_have_count(1)
    runner.end(job)
    await wait_for_state(job, JobState.FINISHED)
    await page.get_by_text("finished").first.wait_for()
    await async_api.expect(rows).to_have_count(1)
    await page.get_by_label("Filter").fill("")
    await shoot(page, "job")


async def test_trial_table_keeps_its_order_and_focus_when_a_trial_ends(
    page: Page,
    client: Client,
    store: JobStore,
    runner: FakeRunner,
    spec: dict[str, Any],
) -> None:
    job = await submit(client, store, spec)
    await wait_until_running(job, runner)
    write_run(job, (5.0, 20.0))
    await page.goto(f"{client.make_url('/')}#/jobs/{job.id}")
    by_rate = page.get_by_role("button", name="rate (rps)")
    await by_rate.click()
    await by_rate.click()
    await by_rate.focus()
    rates = page.locator("table tbody tr td:nth-child(4)")
    await async_api.expect(rates).to_have_text(["20", "5"])
    add_trial(job, 10.0)
    await async_api.expect(rates).to_have_text(["20", "10", "5"])
    await async_api.expect(by_rate).to_be_focused()
    link = page.locator("table tbody tr").nth(2).get_by_role("link")
    await link.focus()
    add_trial(job, 30.0)
    await async_api.expect(rates).to_have_text(["30", "20", "10", "5"])
    await async_api.expect(link.page.locator(":focus")).to_have_text("0")
    header = page.get_by_role("columnheader", name="rate (rps)")
    await async_api.expect(header).to_have_attribute("aria-sort", "descending")


async def test_running_job_draws_its_windows_and_the_growing_front(
    page: Page,
    client: Client,
    store: JobStore,
    runner: FakeRunner,
    spec: dict[str, Any],
) -> None:
    job = await submit(client, store, spec)
    await wait_until_running(job, runner)
    await page.goto(f"{client.make_url('/')}#/jobs/{job.id}")
    await page.get_by_text("no trial yet").wait_for()
    write_run(job, (5.0, 20.0))
    live = page.locator("figure").filter(has_text="achieved against offered rate")
    await live.get_by_text("trial 1: no window yet").wait_for()
    observer = EventObserver(job.events.record)
    observer.window(1, WindowSummary(None, 22.0, 0, 0.1))
    await live.get_by_text("closed loop").wait_for()
    observer.window(1, WindowSummary(21.0, 20.9, 0, 0.1))
    observer.window(1, WindowSummary(25.0, 21.9, 3, 0.9))
    await live.get_by_text("with failures").wait_for()
    await async_api.expect(live.locator(".scatterlayer .point")).to_have_count(2)
    front = page.locator("figure").filter(has_text="Rate against latency")
    points = front.locator(".scatterlayer .point")
    await async_api.expect(points).to_have_count(2)
    add_trial(job, 10.0, p99_s=0.05)
    await async_api.expect(points).to_have_count(3)


async def test_queued_job_shows_what_it_waits_for(
    page: Page,
    client: Client,
    store: JobStore,
    queue: JobQueue,
    runner: FakeRunner,
    spec: dict[str, Any],
) -> None:
    first = await submit(client, store, {**spec, "name": "first"})
    await wait_until_running(first, runner)
    second = await submit(client, store, {**spec, "name": "second"})
    await page.goto(f"{client.make_url('/')}#/jobs/{second.id}")
    await page.get_by_text("queue position 1: waits until first ends").wait_for()
    assert "null" not in await page.locator("main").inner_text()
    await async_api.expect(page.get_by_role("heading", name="Trials")).to_be_hidden()
    await shoot(page, "queued")
    runner.end(first)
    await wait_for_state(second, JobState.RUNNING)
    await page.get_by_text("running").first.wait_for()


async def test_two_jobs_are_compared(
    page: Page,
    client: Client,
    store: JobStore,
    runner: FakeRunner,
    spec: dict[str, Any],
) -> None:
    for name, rates in (("slow", (5.0, 20.0)), ("fast", (5.0, 20.0, 123.4))):
        await finished_job(client, store, runner, {**spec, "name": name}, rates)
    compare = page.get_by_role("button", name="Compare two jobs")
    await page.get_by_label("Compare slow").check()
    await async_api.expect(compare).to_be_disabled()
    await page.get_by_label("Compare fast").check()
    await asyncio.sleep(2.5)  # A refresh of the list keeps what is selected.
    await compare.click()
    await page.get_by_role("heading", name="Compare two jobs").wait_for()
    row = page.get_by_role("row").filter(has_text="best rate (rps)")
    assert await row.locator("td").all_text_contents() == ["20", "123"]
    await shoot(page, "compare")


async def test_compare_shows_a_job_that_has_not_started(
    page: Page,
    client: Client,
    store: JobStore,
    runner: FakeRunner,
    spec: dict[str, Any],
) -> None:
    finished = await finished_job(client, store, runner, {**spec, "name": "done"})
    active = await submit(client, store, {**spec, "name": "active"})
    await wait_until_running(active, runner)
    await page.goto(f"{client.make_url('/')}#/compare/{finished}/{active.id}")
    row = page.get_by_role("row").filter(has_text="best rate (rps)")
    await async_api.expect(row.locator("td")).to_have_text(["20", "–"])
    await page.get_by_text("done: Rate against latency").wait_for()


async def test_plan_form_plans_and_shows_errors_at_their_fields(
    page: Page,
    client: Client,
    store: JobStore,
    runner: FakeRunner,
    spec: dict[str, Any],
) -> None:
    job_id = await finished_job(client, store, runner, spec, (5.0, 100.0))
    await page.goto(f"{client.make_url('/')}#/jobs/{job_id}")
    load = page.get_by_label("Load of all replicas (rps)")
    await load.fill("many")
    await page.get_by_role("button", name="Plan").click()
    await async_api.expect(page.locator("#plan-error-rps")).to_be_visible()
    await async_api.expect(load).to_be_focused()
    await load.fill("100")
    await page.get_by_label("Headroom (share)").fill("0")
    await page.get_by_label("Price of a replica per hour").fill("0.36")
    await page.get_by_role("button", name="Plan").click()
    row = page.get_by_role("row").filter(has_text="Cost per million requests")
    await async_api.expect(row.locator("td")).to_have_text("1")
    replicas = page.get_by_role("row").filter(has_text="Replicas")
    await async_api.expect(replicas.locator("td")).to_have_text("1")
    await shoot(page, "plan")
