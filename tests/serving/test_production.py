from __future__ import annotations

import json

import javaproperties
import pytest

from serving.archive import Archive
from serving.config import ServerConfig
from serving.errors import ConfigError
from serving.production import DeploymentTarget

TUNED = ServerConfig(
    workers=2, batch_size=16, max_batch_delay_ms=50, netty_threads=4, mkl_threads=1
)
PROPERTIES_IN_USE = """\
# A comment of the team.
inference_address=https://0.0.0.0:8443
private_key_file=/etc/tls/key.pem

number_of_netty_threads=32
job_queue_size = 500
models={"echo": {"1.0": {"batchSize": 8}, "2.0": {"batchSize": 2}}, "other": {"1.0": {"minWorkers": 3}}}
load_models=all
io_ratio=70"""


def test_properties_text_keeps_lines_that_are_not_tuned(archive: Archive) -> None:
    target = DeploymentTarget(PROPERTIES_IN_USE, {"disable_token_authorization": "true"})
    lines = target.properties_text(TUNED, archive).splitlines()
    assert lines[:5] == [
        "# A comment of the team.",
        "inference_address=https://0.0.0.0:8443",
        "private_key_file=/etc/tls/key.pem",
        "",
        "number_of_netty_threads=4",
    ]
    assert "load_models=all" in lines and "io_ratio=70" in lines
    assert lines[-1] == "disable_token_authorization=true"
    written = javaproperties.loads("\n".join(lines))
    assert "job_queue_size" not in written, "the trial ran with TorchServe's default"
    models = json.loads(written["models"])
    assert models["other"] == {"1.0": {"minWorkers": 3}} and models["echo"]["2.0"] == {
        "batchSize": 2
    }
    assert models["echo"]["1.0"]["batchSize"] == 16
    parsed, _ = ServerConfig.parse(
        "\n".join(lines), archive, {"MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    )
    assert parsed.to_dict() == {**TUNED.to_dict(), "properties": {**parsed.properties}}
    (note,) = target.notes(TUNED, archive)
    assert note.startswith("io_ratio=70 is kept"), "private_key_file does not change the rate"


def test_properties_text_is_idempotent(archive: Archive) -> None:
    text = DeploymentTarget(PROPERTIES_IN_USE).properties_text(TUNED, archive)
    assert DeploymentTarget(text).properties_text(TUNED, archive) == text
    without_settings = DeploymentTarget("# nothing\n").properties_text(ServerConfig(), archive)
    assert without_settings == f"# nothing\nload_models={archive.path.name}\n"


def test_properties_text_replaces_1_by_true(archive: Archive) -> None:
    tuned = ServerConfig(properties={"cpu_launcher_enable": "true"})
    text = DeploymentTarget("cpu_launcher_enable=1\nload_models=my-echo.mar\n").properties_text(
        tuned, archive
    )
    assert "cpu_launcher_enable=true" in text.splitlines()


def test_notes_reports_archive_that_is_not_loaded(archive: Archive) -> None:
    notes = DeploymentTarget("load_models=my-echo.mar\n").notes(ServerConfig(), archive)
    assert notes == [f"load_models=my-echo.mar does not load {archive.path.name}"]


@pytest.mark.parametrize(
    ("base", "given", "sentence"),
    [
        (None, {"job_queue_size": "5"}, "job_queue_size is part of the measured configuration"),
        (None, {"inference_adress": "x"}, "not known to TorchServe"),
        (None, {"io_ratio": "60"}, "io_ratio is part of the measured configuration"),
        ("models={\n", {}, "property models must be a JSON object"),
        ("a=\\u00g0\n", {}, "the text is not valid Java properties"),
    ],
)
def test_deployment_target_refuses_invalid_properties(
    archive: Archive, base: str | None, given: dict[str, str], sentence: str
) -> None:
    config = ServerConfig(batch_size=2, properties={"io_ratio": "50"})
    with pytest.raises(ConfigError, match=sentence):
        DeploymentTarget(base, given).properties_text(config, archive)


def test_properties_text_changes_the_snapshot_in_use(archive: Archive) -> None:
    entry = {"minWorkers": 3, "maxWorkers": 3, "batchSize": 16, "maxBatchDelay": 9, "x": 1}
    others = {"name": "s.cfg", "modelCount": 2, "models": {"zoo": {"1.0": {"batchSize": 5}}}}
    snapshot = {**others, "models": {**others["models"], "echo": {"1.0": entry}}}  # type: ignore[dict-item]
    text = DeploymentTarget(f"model_snapshot={json.dumps(snapshot)}\n").properties_text(
        TUNED, archive
    )
    assert "\nmodels=" not in text
    written = json.loads(javaproperties.loads(text)["model_snapshot"])
    assert written["models"].pop("echo")["1.0"] | {"marName": "", "defaultVersion": True} == {
        **{"minWorkers": 2, "maxWorkers": 2, "batchSize": 16, "maxBatchDelay": 50, "x": 1},
        **{"marName": "", "defaultVersion": True},
    }
    assert written == others
    read, _ = ServerConfig.parse(text, archive, {"MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"})
    assert read == TUNED


def test_properties_text_refuses_a_snapshot_without_the_model(archive: Archive) -> None:
    target = DeploymentTarget('model_snapshot={"modelCount":0,"models":{}}\n')
    with pytest.raises(ConfigError, match=r"model_snapshot has no entry of echo 1\.0"):
        target.properties_text(TUNED, archive)


def test_properties_text_reads_the_json_that_torchserve_accepts(archive: Archive) -> None:
    base = "models={'echo':{'1.0':{'batchSize':'8'}},zoo:{'1.0':{}}}\n"
    text = DeploymentTarget(base).properties_text(TUNED, archive)
    models = json.loads(javaproperties.loads(text)["models"])
    assert models["zoo"] == {"1.0": {}} and models["echo"]["1.0"]["batchSize"] == 16
