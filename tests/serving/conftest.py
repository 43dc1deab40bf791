"""Fixtures of the tests of `serving`."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.archive import Archive
from serving.installation import Installation, find_installation
from tests.archives import make_archive


@pytest.fixture
def installation() -> Installation:
    return find_installation()


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive.read(make_archive(tmp_path))
