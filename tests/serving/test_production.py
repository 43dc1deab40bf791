"""Files for production: an existing config.properties, the archive's own settings."""

import json
import zipfile
from pathlib import Path

import javaproperties
import pytest
import yaml

from serving.archive import MANIFEST, Archive
from serving.config import ServerConfig
from serving.errors import ConfigError
from serving.production import DeploymentTarget, beside_archive, in_archive, rebuild
from tests.archives import make_archive

TUNED = ServerConfig(
    workers=2, batch_size=16, max_batch_delay_ms=50, netty_threads=4, mkl_threads=1
)
IN_USE = """\
# The team's own words.
inference_address=https://0.0.0.0:8443
private_key_file=/etc/tls/key.pem

number_of_netty_threads=32
job_queue_size = 500
models={"echo": {"1.0": {"batchSize": 8}, "2.0": {"batchSize": 2}}, "other": {"1.0": {"minWorkers": 3}}}
load_models=all
io_ratio=70"""


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive.read(make_archive(tmp_path))


def test_a_file_in_use_keeps_all_but_what_was_tuned(archive: Archive) -> None:
    target = DeploymentTarget(IN_USE, {"disable_token_authorization": "true"})
    lines = target.properties_text(TUNED, archive).splitlines()
    kept = ["# The team's own words.", "inference_address=https://0.0.0.0:8443"]
    assert lines[:5] == [
        *kept,
        "private_key_file=/etc/tls/key.pem",
        "",
        "number_of_netty_threads=4",
    ]
    assert "load_models=all" in lines and "io_ratio=70" in lines
    assert lines[-1] == "disable_token_authorization=true"
    held = javaproperties.loads("\n".join(lines))
    assert "job_queue_size" not in held, "the trial ran with TorchServe's own"
    models = json.loads(held["models"])
    assert models["other"] == {"1.0": {"minWorkers": 3}} and models["echo"]["2.0"] == {
        "batchSize": 2
    }
    assert models["echo"]["1.0"]["batchSize"] == 16
    parsed, _ = ServerConfig.parse(
        "\n".join(lines), archive, {"MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    )
    assert parsed.to_dict() == {**TUNED.to_dict(), "properties": {**parsed.properties}}
    (note,) = target.notes(TUNED, archive)
    assert note.startswith("io_ratio=70 stays"), "private_key_file is the place's"


def test_a_file_that_says_the_same_stays_as_it_is(archive: Archive) -> None:
    once = DeploymentTarget(IN_USE).properties_text(TUNED, archive)
    assert DeploymentTarget(once).properties_text(TUNED, archive) == once
    bare = DeploymentTarget("# nothing\n").properties_text(ServerConfig(), archive)
    assert bare == f"# nothing\nload_models={archive.path.name}\n"


def test_what_only_looks_the_same_is_changed(archive: Archive) -> None:
    tuned = ServerConfig(properties={"cpu_launcher_enable": "true"})
    text = DeploymentTarget("cpu_launcher_enable=1\nload_models=my-echo.mar\n").properties_text(
        tuned, archive
    )
    assert "cpu_launcher_enable=true" in text.splitlines()
    notes = DeploymentTarget("load_models=my-echo.mar\n").notes(ServerConfig(), archive)
    assert notes == [f"load_models=my-echo.mar does not load {archive.path.name}"]


@pytest.mark.parametrize(
    ("base", "given", "sentence"),
    [
        (None, {"job_queue_size": "5"}, "job_queue_size belongs to the configuration"),
        (None, {"inference_adress": "x"}, "not known to TorchServe"),
        (None, {"io_ratio": "60"}, "io_ratio belongs to the configuration"),
        ("models={\n", {}, "property models is not the JSON"),
        ("a=\\u00g0\n", {}, "not a file of Java properties"),
    ],
)
def test_what_cannot_be_changed_so_is_refused(
    archive: Archive, base: str | None, given: dict[str, str], sentence: str
) -> None:
    config = ServerConfig(batch_size=2, properties={"io_ratio": "50"})
    with pytest.raises(ConfigError, match=sentence):
        DeploymentTarget(base, given).properties_text(config, archive)


def test_an_archive_takes_its_settings_along(archive: Archive, tmp_path: Path) -> None:
    config = ServerConfig(
        workers=2, batch_size=16, job_queue_size=50, netty_threads=4, response_timeout_s=9
    )
    first = rebuild(archive, {"minWorkers": 9, "maxWorkers": 9}, tmp_path / "first.mar")
    assert yaml.safe_load(first) == {"minWorkers": 9, "maxWorkers": 9}
    path = tmp_path / "again.mar"
    text = rebuild(Archive.read(tmp_path / "first.mar"), in_archive(config), path)
    with zipfile.ZipFile(path) as mar, zipfile.ZipFile(archive.path) as old:
        manifest = json.loads(mar.read(MANIFEST))
        assert mar.read(manifest["model"]["configFile"]).decode() == text
        assert set(mar.namelist()) == {*old.namelist(), "model-config.yaml"}
        assert len(mar.namelist()) == len(set(mar.namelist()))
    assert yaml.safe_load(text) == {
        **{"minWorkers": 2, "maxWorkers": 2, "batchSize": 16},
        **{"responseTimeout": 9, "jobQueueSize": 50},
    }
    assert beside_archive(config).to_dict() == {"netty_threads": 4, "job_queue_size": 50}
    assert Archive.read(path).name == archive.name
