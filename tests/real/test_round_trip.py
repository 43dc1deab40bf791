"""TorchServe starts from generated deployments with another configuration exported into them."""

from __future__ import annotations

from collections import Counter
from itertools import count, islice
from pathlib import Path

import pytest

from search.answer.scaling import Scaling
from search.export.common import ExportRequest
from search.export.files import _write_common_files
from search.export.properties import write_properties
from search.export.resources import Resources
from serving.archive import Archive
from serving.configuration.config import MODEL_KEYS
from serving.configuration.deployment import Deployment
from serving.configuration.production import DeploymentTarget
from serving.exported import ExportedServer
from serving.installation import find_installation
from serving.platforms.reading import read_platform
from serving.site import Site
from tests.archives import make_archive
from tests.serving.deployments import Generated, generate
from tests.serving.test_round_trip import THREADS, expected

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SAMPLE_SIZE = 30


def is_utf8(text: str) -> bool:
    """Return whether the command torchserve can read the file."""
    try:
        text.encode("latin-1").decode()
    except UnicodeDecodeError:
        return False
    return True


async def start(made: Generated, archive: Archive, folder: Path) -> None:
    """Export, start TorchServe from the files, and compare its own description."""
    target = DeploymentTarget(made.text)
    request = ExportRequest(
        folder / "best",
        made.tuned,
        archive,
        target,
        image=None,
        effective={},
        scaling=Scaling(1.0, 0.1, 1),
        resources=Resources(None, None, are_limits=False),
    )
    request.folder.mkdir(parents=True)
    _write_common_files(request, write_properties(request))
    text = (request.folder / "config.properties").read_text("latin-1")
    after = Deployment.read(text, THREADS, archive)
    site = Site(after.archive, find_installation())
    platform = read_platform(request.folder)
    assert platform is not None
    async with ExportedServer(
        request.folder, platform, after.config, site, folder / "logs"
    ) as server:
        assert server.differences() == [], text
        before = Deployment.read(made.text, {}, archive).config
        wanted = expected(made, before)
        described = {name: wanted[name] for name in MODEL_KEYS if wanted[name] is not None}
        assert {name: server.model.settings[name] for name in described} == described, text


async def test_torchserve_describes_what_was_exported(tmp_path: Path) -> None:
    archive = Archive.read(make_archive(tmp_path))
    generated = (generate(seed, archive.path) for seed in count())
    forms = Counter()
    readable = (made for made in generated if is_utf8(made.text))
    for number, made in enumerate(islice(readable, SAMPLE_SIZE)):
        await start(made, archive, tmp_path / str(number))
        forms[made.form] += 1
    assert len(forms) == 6 and forms.total() == SAMPLE_SIZE
