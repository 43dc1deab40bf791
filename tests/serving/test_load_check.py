"""The error of a model that does not load, as a worker of TorchServe raises it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from serving.archive import Archive
from serving.load_check import load_error
from tests.archives import ECHO, make_archive

pytestmark = pytest.mark.processes


@pytest.mark.parametrize(
    "source, expected",
    [
        (ECHO, ""),
        (
            "import no_such_module\n\ndef handle(data, context):\n    return data\n",
            "no_such_module",
        ),
        ("def handle(data, context):\n    raise ValueError('no weights')\n", "no weights"),
        ("import os\n\ndef handle(data, context):\n    os._exit(3)\n", "exits with status 3"),
    ],
    ids=["loads", "import", "initialization", "exit"],
)
async def test_load_error_is_the_handlers(tmp_path: Path, source: str, expected: str) -> None:
    archive = Archive.read(make_archive(tmp_path, source))
    found = await load_error(archive, sys.executable, {"PATH": os.environ["PATH"]})
    assert expected in found and bool(found) == bool(expected)
