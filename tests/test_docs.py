"""The tests that the documentation names."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("page", ["reliability", "security"])
def test_docs_name_the_tests_of_each_row(page: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text()
    cells = re.findall(r"\| ([^|]*test[^|]*\.py[^|]*) \|$", text, re.MULTILINE)
    assert len(cells) > 15
    for cell in cells:
        folder = Path()
        for name in cell.split(", "):
            folder = Path(name).parent if "/" in name else folder
            assert (ROOT / folder / Path(name).name).is_file(), name
    folders = re.findall(r"\| [^|]*\btests/[\w/]+(?:,[^|]*)? \|$", text, re.MULTILINE)
    assert not folders, "a row names a folder only"
