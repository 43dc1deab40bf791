from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from serving.archive import MANIFEST, Archive
from serving.configuration.config import ServerConfig
from serving.configuration.model_config import (
    archive_settings,
    overrides,
    rebuild_archive,
    unpack_with_settings,
    without_archive_settings,
)
from tests.archives import ECHO, as_folder, as_tar, make_archive

CONFIG = ServerConfig(workers=2, batch_size=16, netty_threads=4)


@pytest.mark.parametrize(
    ("model_config", "config", "overridden"),
    [
        ("batchSize: 4\n", CONFIG, True),
        ("handler: {}\n", CONFIG, False),
        ("handler: {}\n", ServerConfig(response_timeout_s=60), True),
        ("handler: {}\n", ServerConfig(model_properties={"startupTimeout": 60}), True),
        ("minWorkers: 1\n", CONFIG, False),
        ("minWorkers: 1\nmaxWorkers: 1\n", CONFIG, True),
        ("minWorkers: 2\nmaxWorkers: 2\nbatchSize: 16\n", CONFIG, False),
        ("jobQueueSize: 50\n", ServerConfig(job_queue_size=1000), True),
        ("batchSize: 4\n", ServerConfig(netty_threads=4), False),
        ("batchSize: 4\n", ServerConfig(), False),
    ],
)
def test_overrides_compares_settings_of_the_model(
    tmp_path: Path, model_config: str, config: ServerConfig, overridden: bool
) -> None:
    archive = Archive.read(make_archive(tmp_path, model_config__yaml=model_config))
    assert overrides(archive, config) is overridden


@pytest.mark.parametrize(
    "model_config",
    [
        "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 4\nhandler: {device: cpu}\n",
        "# comment\nbatchSize: 4\nhandler:\n    device: cpu\n",
        "base: &base {device: cpu}\nhandler: *base\n",
        'handler: {"device": "cpu"}\nminWorkers: "3"\n',
    ],
)
def test_unpack_with_settings_changes_only_tuned_keys(tmp_path: Path, model_config: str) -> None:
    path = make_archive(tmp_path, model_config__yaml=model_config)
    settings = archive_settings(CONFIG)
    text = unpack_with_settings(Archive.read(path), settings, tmp_path / "store" / path.name)
    folder = tmp_path / "store" / path.name
    assert (folder / "model-config.yaml").read_text() == text
    before, after = yaml.safe_load(model_config), yaml.safe_load(text)
    assert after == {**before, **settings}
    with zipfile.ZipFile(path) as mar:
        for name in set(mar.namelist()) - {"model-config.yaml", MANIFEST}:
            assert (folder / name).read_bytes() == mar.read(name)
        assert json.loads((folder / MANIFEST).read_text()) == json.loads(mar.read(MANIFEST))


@pytest.mark.parametrize(
    ("model_config", "expected"),
    [
        ("# ours\nbatchSize: 4  # small\na: {b: 1}\n", "# ours\nbatchSize: 16  # small\na: {b: 1}\n"),
        ("batchSize : 1\r\nhandler:\r\n  batchSize: 4\r\n", "batchSize : 16\r\nhandler:\r\n  batchSize: 4\r\n"),
        ("handler:\n  batchSize: 4", "handler:\n  batchSize: 4\nbatchSize: 16\n"),
        ("batchSize: 16 # kept\n", "batchSize: 16 # kept\n"),
        ("{batchSize: 4}\n", "{batchSize: 16}\n"),
        ("batchSize:\t4\na: 1\n", "batchSize: 16\na: 1\n"),
        ("{a: 1}\n", "a: 1\nbatchSize: 16\n"),
        ("batchSize:\n  4\na: 1\n", "batchSize:\n  16\na: 1\n"),
        ("batchSize:  # none\na: 1\n", "batchSize: 16  # none\na: 1\n"),
        ("batchSize:", "batchSize: 16"),
        ("\ufeffbatchSize: 4\na: 1\n", "\ufeffbatchSize: 16\na: 1\n"),
        ("a: &b 4\n? batchSize\n: *b\n", "a: &b 4\n? batchSize\n: 16\n"),
        ("a: &b 4\nbatchSize: *b # c\n", "a: &b 4\nbatchSize: 16 # c\n"),
        ("batchSize: 4\n'batchSize': \"5\"\n", "batchSize: 16\n'batchSize': 16\n"),
        ("a: 1\r\nb: 2\r\n", "a: 1\r\nb: 2\r\nbatchSize: 16\r\n"),
        ("a: 1\r\nb: 2", "a: 1\r\nb: 2\r\nbatchSize: 16\r\n"),
        ("batchSize: |\n  4\na: 1\n", "batchSize: 16\na: 1\n"),
    ],
)  # fmt: skip
def test_unpack_with_settings_keeps_other_lines(
    tmp_path: Path, model_config: str, expected: str
) -> None:
    path = make_archive(tmp_path, model_config__yaml="batchSize: 4\n")
    folder = as_folder(path)
    (folder / "model-config.yaml").write_bytes(model_config.encode())
    text = unpack_with_settings(Archive.read(folder), {"batchSize": 16}, tmp_path / "store")
    assert text == expected and yaml.safe_load(text)["batchSize"] == 16
    assert (tmp_path / "store" / "model-config.yaml").read_bytes() == expected.encode()


@pytest.mark.parametrize("convert", [as_tar, as_folder], ids=["tar", "folder"])
def test_archive_of_another_form_takes_settings(
    tmp_path: Path, convert: Callable[[Path], Path]
) -> None:
    archive = Archive.read(convert(make_archive(tmp_path, model_config__yaml="batchSize: 4\n")))
    before = archive.sha256
    rebuilt, store = tmp_path / "rebuilt" / archive.path.name, tmp_path / "store" / "echo"
    rebuilt.parent.mkdir()
    text = rebuild_archive(archive, archive_settings(CONFIG), rebuilt)
    assert unpack_with_settings(archive, archive_settings(CONFIG), store) == text
    for path in (rebuilt, store):
        read = Archive.read(path)
        assert read.settings["batchSize"] == 16 and read.settings["minWorkers"] == 2
    assert (store / "handler.py").read_text() == ECHO
    assert archive.sha256 == before, "the original is not changed through a link"


def test_unpack_with_settings_links_the_files_of_a_folder(tmp_path: Path) -> None:
    folder = as_folder(make_archive(tmp_path, model_config__yaml="batchSize: 4\n"))
    store = tmp_path / "store" / "echo"
    unpack_with_settings(Archive.read(folder), archive_settings(CONFIG), store)
    links = {path.name for path in store.iterdir() if path.is_symlink()}
    assert links == {"handler.py"}, "MAR-INF and model-config.yaml are replaced"


def test_rebuild_archive_replaces_settings(archive: Archive, tmp_path: Path) -> None:
    config = ServerConfig(
        workers=2, batch_size=16, job_queue_size=50, netty_threads=4, response_timeout_s=9
    )
    first = rebuild_archive(archive, {"minWorkers": 9, "maxWorkers": 9}, tmp_path / "first.mar")
    assert yaml.safe_load(first) == {"minWorkers": 9, "maxWorkers": 9}
    path = tmp_path / "second.mar"
    text = rebuild_archive(Archive.read(tmp_path / "first.mar"), archive_settings(config), path)
    with zipfile.ZipFile(path) as mar, zipfile.ZipFile(archive.path) as old:
        manifest = json.loads(mar.read(MANIFEST))
        assert mar.read(manifest["model"]["configFile"]).decode() == text
        assert set(mar.namelist()) == {*old.namelist(), "model-config.yaml"}
        assert len(mar.namelist()) == len(set(mar.namelist()))
    assert yaml.safe_load(text) == {
        **{"minWorkers": 2, "maxWorkers": 2, "batchSize": 16},
        **{"responseTimeout": 9, "jobQueueSize": 50},
    }
    assert without_archive_settings(config).to_dict() == {"netty_threads": 4, "job_queue_size": 50}
    assert Archive.read(path).name == archive.name
