"""The page in a real browser, over a real service, Ray and TorchServe."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.real.conftest import nothing_stays_behind  # noqa: F401
from tests.real.test_service import ServiceProcess

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH"),
]
WriteStudy = Callable[..., Path]


@pytest.fixture
def page() -> Iterator[sync_api.Page]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1280, "height": 900})
        browser.close()


def shoot(page: sync_api.Page, name: str) -> None:
    """Keep what is to be seen, in both sizes, and see that nothing hangs out."""
    for width in (1280, 400):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(400)
        overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert overflow <= 0, f"{name} at {width} pixels scrolls sideways"
        if folder := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=Path(folder) / f"{name}-{width}.png", full_page=True)
    page.set_viewport_size({"width": 1280, "height": 900})


def test_page_takes_a_job_to_production(
    page: sync_api.Page,
    service: ServiceProcess,
    study: WriteStudy,
    tmp_path: Path,
) -> None:
    said: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    home = f"http://127.0.0.1:{service.port}"
    page.goto(home)
    page.get_by_label("Access token").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").wait_for()
    page.get_by_label("Access token").fill((service.folder / "token").read_text().strip())
    page.keyboard.press("Enter")
    page.get_by_text("No jobs yet").wait_for()
    shoot(page, "empty")

    page.get_by_role("link", name="New job").click()
    page.get_by_label("Specification").fill("search: {trials: 0}")
    page.get_by_role("button", name="Start the job").click()
    page.locator("[id='error-search.trials']").get_by_text("must be at least 1").wait_for()
    shoot(page, "refused")
    text = study().read_text().replace("output:\n  folder: " + str(tmp_path / "runs") + "\n", "")
    page.get_by_label("Specification").fill(text)
    page.get_by_role("button", name="Start the job").click()

    page.get_by_role("heading", name="small").wait_for()
    page.get_by_text("running").first.wait_for(timeout=60_000)
    page.locator(".plot .scatterlayer .trace").nth(3).wait_for(state="attached", timeout=120_000)
    shoot(page, "live")
    assert service.process is not None
    service.process.kill()
    service.process.wait()
    page.get_by_text("reconnecting to the service").wait_for(timeout=20_000)
    service.start()
    page.locator("table tbody tr").nth(3).wait_for(timeout=240_000)
    page.get_by_text("finished").first.wait_for(timeout=60_000)
    shoot(page, "finished")

    page.get_by_role("button", name="rate (rps)").click()
    page.get_by_role("button", name="rate (rps)").click()
    rates = page.locator("table tbody tr td:nth-child(4)").all_text_contents()
    numbers = [float(text) for text in rates if text != "–"]
    assert numbers == sorted(numbers, reverse=True) and len(numbers) > 1
    page.get_by_label("Filter").fill("default")
    assert page.locator("table tbody tr").count() == 1
    page.get_by_label("Filter").fill("")

    with page.expect_download() as download:
        page.get_by_role("button", name="Download files for production").click()
    download.value.save_as(tmp_path / "best.tar.gz")
    with tarfile.open(tmp_path / "best.tar.gz") as archive:
        assert "best/config.properties" in archive.getnames()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download report").click()
    download.value.save_as(tmp_path / "report.html")
    page.locator("table tbody tr a").first.click()
    page.get_by_role("heading", name="Trial", level=1).wait_for()
    page.get_by_text("config.properties compared with the default").wait_for()
    shoot(page, "trial")
    page.goto(home)
    page.get_by_role("link", name="small").wait_for()
    shoot(page, "jobs")
    page.goto((tmp_path / "report.html").as_uri())
    page.get_by_role("heading", name="Latency against offered load").wait_for()
    page.locator(".plot svg.main-svg").first.wait_for()
    shoot(page, "downloaded-report")
    assert said == []
    assert [url for url in asked if not url.startswith((home, "file:", "data:", "blob:"))] == []
    assert not any((service.folder / "token").read_text().strip() in url for url in asked)


def test_page_stops_and_resumes_by_keyboard(
    page: sync_api.Page,
    service: ServiceProcess,
    study: WriteStudy,
) -> None:
    job_id = service.run_command("submit", study()).split()[0]
    page.goto(f"http://127.0.0.1:{service.port}/#/jobs/{job_id}")
    page.get_by_label("Access token").fill((service.folder / "token").read_text().strip())
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Stop").wait_for()
    page.get_by_text("running").first.wait_for(timeout=60_000)
    page.get_by_role("button", name="Stop").focus()
    page.keyboard.press("Enter")
    page.get_by_text("stopped").first.wait_for(timeout=120_000)
    page.get_by_role("button", name="Resume").focus()
    page.keyboard.press("Enter")
    page.get_by_text("running").first.wait_for(timeout=60_000)
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("stopped").first.wait_for(timeout=120_000)
    assert service.process is not None and service.process.poll() is None
