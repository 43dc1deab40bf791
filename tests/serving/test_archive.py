from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.archive import Archive
from serving.archive_files import unpack
from serving.errors import ArchiveError
from tests.archives import as_folder, as_tar, make_archive


def test_archive_has_name_version_and_settings(tmp_path: Path) -> None:
    path = make_archive(tmp_path, name="small", model_config__yaml="jobQueueSize: 50\n")
    archive = Archive.read(path)
    assert (archive.name, archive.version) == ("small", "1.0")
    assert archive.settings == {"jobQueueSize": 50}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "is not valid YAML"),
        ("a: 1\n---\nb: 1\n", "is not valid YAML"),
        ("# nothing\n", "is empty, and TorchServe does not start with that"),
        ("- a\n", "is not a mapping of settings, and TorchServe does not start with that"),
    ],
)
def test_archive_refuses_damaged_model_config(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ArchiveError, match=rf"model-config\.yaml {problem}"):
        Archive.read(make_archive(tmp_path, model_config__yaml=text))


@pytest.mark.parametrize(
    ("settings", "effective"),
    [
        ({}, {}),
        ({"handler": {}}, {"responseTimeout": 120, "startupTimeout": 120}),
        (
            {"batchSize": 0, "maxBatchDelay": -1, "responseTimeout": "60", "startupTimeout": 9},
            {"batchSize": 1, "responseTimeout": 120, "startupTimeout": 9},
        ),
        (
            {"minWorkers": -3, "maxWorkers": 2, "jobQueueSize": 2**31},
            {"minWorkers": 1, "maxWorkers": 2, "responseTimeout": 120, "startupTimeout": 120},
        ),
    ],
)
def test_effective_settings_are_those_that_torchserve_takes(
    settings: dict[str, object], effective: dict[str, int]
) -> None:
    archive = Archive(Path("/models/echo.mar"), "echo", "1.0", settings)
    assert archive.effective_settings == effective


def in_a_folder(mar: Path) -> Path:
    """Unpack the archive into the only subfolder of a folder; return the outer one."""
    outer = mar.with_name("outer")
    outer.mkdir()
    as_folder(mar).rename(outer / "inner")
    return outer


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


@pytest.mark.parametrize(
    "convert", [as_tar, as_folder, in_a_folder], ids=["tar", "folder", "folder in a folder"]
)
def test_archive_reads_other_forms_like_a_mar_file(
    tmp_path: Path, convert: Callable[[Path], Path]
) -> None:
    mar = make_archive(tmp_path, name="small", model_config__yaml="batchSize: 4\n")
    path = convert(mar)
    archive = Archive.read(path)
    assert (archive.path, archive.name, archive.version) == (path, "small", "1.0")
    assert archive.settings == {"batchSize": 4}
    assert len(archive.sha256) == 64 and archive.sha256 != Archive.read(mar).sha256


def test_sha256_changes_with_a_file_of_a_folder(tmp_path: Path) -> None:
    folder = as_folder(make_archive(tmp_path))
    before = Archive.read(folder).sha256
    assert Archive.read(folder).sha256 == before
    (folder / "handler.py").write_text("def handle(data, context): ...\n")
    assert Archive.read(folder).sha256 != before


def test_archive_refuses_other_files_with_the_forms_that_exist(tmp_path: Path) -> None:
    (tmp_path / "no").mkdir()
    with pytest.raises(ArchiveError, match=r"there is no file MAR-INF/MANIFEST\.json in it; build"):
        Archive.read(tmp_path / "no")
    with tarfile.open(tmp_path / "no.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "no", "no")
    with pytest.raises(ArchiveError, match=r"there is no file MAR-INF/MANIFEST\.json in it; build"):
        Archive.read(tmp_path / "no.tar.gz")
    make_archive(tmp_path).rename(tmp_path / "echo.zip")
    with pytest.raises(ArchiveError, match=r"must be a \.mar file, a \.tar\.gz file or a folder"):
        Archive.read(tmp_path / "echo.zip")


def test_load_models_has_the_alias(tmp_path: Path) -> None:
    archive = Archive.read(make_archive(tmp_path))
    assert archive.load_models == archive.registered_as("echo").load_models == "echo.mar"
    assert archive.registered_as("parrot").load_models == "parrot=echo.mar"
    assert archive.registered_as("parrot").registered_as("echo").load_models == "echo.mar"


@pytest.mark.parametrize("name", ["echo/../../out", "echo//tmp/servetune-out", "x/../../../out"])
def test_unpack_refuses_files_outside_of_the_folder(tmp_path: Path, name: str) -> None:
    path = as_tar(make_archive(tmp_path))
    with tarfile.open(tmp_path / "bad.tar.gz", "w:gz") as tar:
        tar.add(path, name)
    with pytest.raises(ArchiveError, match=r"would be outside of"):
        unpack(tmp_path / "bad.tar.gz", tmp_path / "a" / "store")
    assert not (tmp_path / "out").exists() and not (tmp_path / "a" / "out").exists()


def test_unpack_leaves_out_links_of_a_tar_file(tmp_path: Path) -> None:
    folder = as_folder(make_archive(tmp_path))
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    path = tmp_path / "links.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, "echo")
    unpack(path, tmp_path / "store")
    names = {p.name for p in (tmp_path / "store").iterdir()}
    assert names == {"MAR-INF", "handler.py", "run.sh"}
    assert (tmp_path / "store" / "run.sh").stat().st_mode & 0o777 == 0o755
