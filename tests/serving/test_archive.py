from __future__ import annotations

from pathlib import Path

import pytest

from serving.archive import Archive
from serving.errors import ArchiveError
from tests.archives import make_archive


def test_archive_has_name_version_and_settings(tmp_path: Path) -> None:
    path = make_archive(tmp_path, name="small", model_config__yaml="jobQueueSize: 50\n")
    archive = Archive.read(path)
    assert (archive.name, archive.version) == ("small", "1.0")
    assert archive.settings == {"jobQueueSize": 50}


def test_archive_refuses_damaged_model_config(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"model-config\.yaml is not valid YAML"):
        Archive.read(make_archive(tmp_path, model_config__yaml="a: ["))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(None, "does not exist", id="missing"),
        pytest.param(b"", "is not a model archive", id="empty"),
        pytest.param(b"no zip", "is not a model archive", id="not a zip file"),
    ],
)
def test_archive_refuses_broken_file(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "broken.mar"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArchiveError, match=rf"broken\.mar {problem}"):
        Archive.read(path)
