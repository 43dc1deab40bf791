"""report.html in a real browser: it opens from disk, and nothing in it fails."""

import os
import shutil
from pathlib import Path
from typing import Literal

import pytest

from search.report.summary import write_report
from search.study.outcome import Outcome
from tests.search.conftest import confirmed, measured_files, outcome  # noqa: F401

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH"),
]
HEADINGS = ("What to change", "How sure this is", "How many replicas", "What limits the rate")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1600, 1280, 400])
def test_report_opens_from_disk(
    confirmed: Outcome,  # noqa: F811
    width: int,
    scheme: Literal["light", "dark"],
) -> None:
    write_report(confirmed)
    page_path = confirmed.run.folder / "report.html"
    said: list[str] = []
    asked: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(page_path.as_uri())
        page.wait_for_selector(".plot svg.main-svg")
        headings = page.locator("h2").all_text_contents()
        overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        if folder := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=Path(folder) / f"report-{width}-{scheme}.png", full_page=True)
        browser.close()
    assert [line for line in said if line.startswith("error")] == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert set(HEADINGS) <= set(headings)
    assert overflow <= 0, "the page itself does not scroll sideways"
