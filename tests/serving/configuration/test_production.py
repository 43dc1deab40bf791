from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import javaproperties
import pytest

from serving.archive import Archive
from serving.configuration.config import ServerConfig
from serving.configuration.deployment import Deployment
from serving.configuration.jvm import parse_jvm
from serving.configuration.production import DeploymentTarget
from serving.configuration.reading import start_lines
from serving.errors import ConfigError
from tests.serving.configuration.test_deployment import parse

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
    assert written["job_queue_size"] == "500"
    models = json.loads(written["models"])
    assert models["other"] == {"1.0": {"minWorkers": 3}} and models["echo"]["2.0"] == {
        "batchSize": 2
    }
    assert models["echo"]["1.0"]["batchSize"] == 16
    parsed, _ = parse("\n".join(lines), archive, {"MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"})
    kept = {"job_queue_size": 500, "properties": {**parsed.properties}}
    assert parsed.to_dict() == {**TUNED.to_dict(), **kept}
    # private_key_file does not change the rate.
    assert [note.partition(" is kept")[0] for note in target.notes(TUNED, archive)] == [
        "job_queue_size=500",
        "io_ratio=70",
        "the file also serves echo 2.0, other 1.0, beside which nothing was measured",
    ]


def test_properties_text_is_idempotent(archive: Archive) -> None:
    text = DeploymentTarget(PROPERTIES_IN_USE).properties_text(TUNED, archive)
    assert DeploymentTarget(text).properties_text(TUNED, archive) == text
    without_settings = DeploymentTarget("# nothing\n").properties_text(ServerConfig(), archive)
    assert without_settings == f"# nothing\nload_models={archive.path.name}\n"


def test_properties_text_keeps_the_folders_of_the_jvm(archive: Archive) -> None:
    """The trials had others."""
    base = "vmargs=-Xmx1g -Djava.io.tmpdir=/mnt -Dmodel_server_home=/opt -DTS_DEBUG=true\n"
    text = DeploymentTarget(base).properties_text(ServerConfig(jvm={"-Xmx": "2g"}), archive)
    assert parse_jvm(start_lines(text)["vmargs"]) == {
        "-DTS_DEBUG": "true",
        "-Djava.io.tmpdir": "/mnt",
        "-Dmodel_server_home": "/opt",
        "-Xmx": "2g",
    }


@pytest.mark.parametrize(
    ("vmargs", "jvm", "written", "unmeasured"),
    [
        (
            "--add-opens java.base/java.lang=ALL-UNNAMED -javaagent:/opt/dd.jar -XX:+UseZGC",
            {"-Xmx": "2g"},
            "--add-opens=java.base/java.lang=ALL-UNNAMED -javaagent:/opt/dd.jar -XX:+UseZGC -Xmx2g",
            "--add-opens=java.base/java.lang=ALL-UNNAMED -javaagent:/opt/dd.jar -XX:+UseZGC",
        ),
        ("-Xmx1g -Dx=1", {"-Xmx": "2g"}, "-Dx=1 -Xmx2g", "-Dx=1"),
        ("-XX:+UseZGC -Dx=1", {"-XX:+UseG1GC": ""}, "-Dx=1 -XX:+UseG1GC", "-Dx=1"),
        ("-XX:+UseZGC", {"-XX:-UseZGC": ""}, "-XX:+UseZGC -XX:-UseZGC", "-XX:+UseZGC"),
        ("-Dx=1   -Xmx2g", {"-Xmx": "2g"}, "-Dx=1   -Xmx2g", "-Dx=1"),
        ("-Dx=1", {}, "-Dx=1", "-Dx=1"),
    ],
)
def test_properties_text_keeps_jvm_arguments_that_are_not_tuned(
    archive: Archive, vmargs: str, jvm: dict[str, str], written: str, unmeasured: str
) -> None:
    target, tuned = DeploymentTarget(f"vmargs={vmargs}\nload_models=all\n"), ServerConfig(jvm=jvm)
    text = target.properties_text(tuned, archive)
    assert text == f"vmargs={written}\nload_models=all\n"
    assert DeploymentTarget(text).properties_text(tuned, archive) == text
    note = f"vmargs={unmeasured} is kept, but the configuration was measured without it"
    assert target.notes(tuned, archive) == [note]


def test_properties_text_keeps_secret_jvm_arguments(archive: Archive) -> None:
    base = "vmargs=-Xmx1g -Da.password=x\n"
    target = DeploymentTarget(base)
    assert parse_jvm(
        start_lines(target.properties_text(ServerConfig(jvm={"-Xmx": "2g"}), archive))["vmargs"]
    ) == {"-Xmx": "2g", "-Da.password": "x"}
    assert target.properties_text(ServerConfig(jvm={"-Xmx": "1g"}), archive).startswith(base)
    assert target.line_secrets == {"JDK_JAVA_OPTIONS"}


def test_properties_text_replaces_1_by_true(archive: Archive) -> None:
    tuned = ServerConfig(properties={"cpu_launcher_enable": "true"})
    text = DeploymentTarget("cpu_launcher_enable=1\nload_models=my-echo.mar\n").properties_text(
        tuned, archive
    )
    assert "cpu_launcher_enable=true" in text.splitlines()


SNAPSHOT = (
    'model_snapshot={"modelCount":1,"models":{"cats":{"1.0":{"defaultVersion":true,'
    '"marName":"echo.mar","minWorkers":2,"maxWorkers":4,"batchSize":1,"maxBatchDelay":20000,'
    '"responseTimeout":33}}}}\n'
)
ENTRY = 'load_models=cats=echo.mar\nmodels={"cats":{"1.0":{"minWorkers":2,"maxWorkers":4}}}\n'


@pytest.mark.parametrize(
    ("base", "tuned", "kept", "more"),
    [
        (SNAPSHOT, TUNED, ["responseTimeout=33"], []),
        (ENTRY, TUNED, [], []),
        (ENTRY, ServerConfig(batch_size=8), ["minWorkers=2", "maxWorkers=4"], ["minWorkers is 2"]),
        (
            SNAPSHOT,
            replace(TUNED, max_batch_delay_ms=None),
            ["maxBatchDelay=20000", "responseTimeout=33"],
            ["the batch delay is 20000 ms"],
        ),
    ],
)
def test_notes_describe_the_entry_that_is_exported(
    archive: Archive, base: str, tuned: ServerConfig, kept: list[str], more: list[str]
) -> None:
    notes = DeploymentTarget(base).notes(tuned, archive)
    measured_without = "is kept, but the configuration was measured without it"
    expected = [f"{entry} of the model cats {measured_without}" for entry in kept]
    assert notes[: len(kept)] == expected
    described = zip(notes[len(kept) :], more, strict=True)
    assert all(note.startswith(start) for note, start in described)


def test_notes_reports_archive_that_is_not_loaded(archive: Archive) -> None:
    notes = DeploymentTarget("load_models=my-echo.mar\n").notes(ServerConfig(), archive)
    assert notes == [
        "the file also serves my-echo, beside which nothing was measured",
        f"load_models=my-echo.mar does not load {archive.path.name}",
    ]


@pytest.mark.parametrize(
    ("base", "given", "sentence"),
    [
        (None, {"job_queue_size": "5"}, "job_queue_size is part of the measured configuration"),
        (None, {"inference_adress": "x"}, "not known to TorchServe"),
        (None, {"io_ratio": "60"}, "io_ratio is part of the measured configuration"),
        ("models={\n", {}, "the JSON of property models has no end"),
        ("models=[1]\n", {}, "property models must be a JSON object"),
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
    entry = {
        **{"minWorkers": 3, "maxWorkers": 3, "batchSize": 16, "maxBatchDelay": 9, "x": 1},
        **{"marName": "echo.mar", "defaultVersion": True},
    }
    zoo = {**entry, "marName": "zoo.mar"}
    others = {"name": "s.cfg", "modelCount": 2, "models": {"zoo": {"1.0": zoo}}}
    snapshot = {**others, "models": {**others["models"], "echo": {"1.0": entry}}}  # type: ignore[dict-item]
    text = DeploymentTarget(f"model_snapshot={json.dumps(snapshot)}\n").properties_text(
        TUNED, archive
    )
    assert "\nmodels=" not in text
    written = json.loads(javaproperties.loads(text)["model_snapshot"])
    tuned = {"minWorkers": 2, "maxWorkers": 2, "maxBatchDelay": 50}
    assert written["models"].pop("echo")["1.0"] == {**entry, **tuned}
    assert written == others
    read, _ = parse(text, archive, {"MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"})
    assert read == TUNED


def test_properties_text_refuses_a_snapshot_without_the_model(archive: Archive) -> None:
    target = DeploymentTarget('model_snapshot={"modelCount":0,"models":{}}\n')
    with pytest.raises(ConfigError, match=r"model_snapshot has no entry of echo 1\.0"):
        target.properties_text(TUNED, archive)


def test_properties_text_reads_the_json_that_torchserve_accepts(archive: Archive) -> None:
    base = "models={'echo':{'1.0':{'batchSize':'8'}},zoo:{'1.0':{}}}\n"
    text = DeploymentTarget(base).properties_text(TUNED, archive)
    assert text == (
        "models={'echo':{'1.0':{'batchSize':16,"
        '"minWorkers":2,"maxWorkers":2,"maxBatchDelay":50}},zoo:{\'1.0\':{}}}\n'
        "number_of_netty_threads=4\nload_models=all\n"
    )


@pytest.mark.parametrize(
    "base",
    [
        b"load_models=echo.mar\njob_queue_size=1000\nnumber_of_netty_threads=32\n",
        b"# file d'attente r\xe9gl\xe9e\r\ncors_allowed_origin=http://caf\xe9.example\r\nload_models=all\r\n",
        b"\xef\xbb\xbf# settings\nload_models : all\n  io_ratio   70\n! x\n\n",
        b"# \xe9\x85\x8d\xe7\xbd\xae\nload_models=\\\n  all\nprefer_direct_buffer=True",
        b"a=1\rload_models=all\rprefer_direct_buffer=True\rmetrics_format=x\r",
        b"load_models=all\nvmargs=-Xmx1g   -server\nmodels={'echo':{'1.0':{'x':1}}}\n",
    ],
)
def test_properties_text_keeps_every_byte_of_other_lines(archive: Archive, base: bytes) -> None:
    target = DeploymentTarget(base.decode("latin-1"))
    in_use = parse(target.base or "", archive)[0]
    assert target.properties_text(in_use, archive).encode("latin-1") == base
    assert target.properties_text(ServerConfig(), archive).encode("latin-1") == base
    tuned = replace(in_use, batch_size=16, netty_client_threads=3)
    written = target.properties_text(tuned, archive)
    assert parse(written, archive)[0] == tuned
    kept = [line for line in base.splitlines(keepends=True) if not line.startswith(b"models")]
    lines = written.encode("latin-1").splitlines(keepends=True)
    ends = [line.rstrip(b"\r\n") for line in kept]
    assert [line.rstrip(b"\r\n") for line in lines if line.rstrip(b"\r\n") in ends] == ends


def test_properties_text_keeps_a_line_that_has_the_tuned_value(archive: Archive) -> None:
    base = "load_models=all\nmodels={'echo':{'1.0':{'batchSize':'16','maxWorkers':2,'minWorkers':2}}}\n"
    assert (
        DeploymentTarget(base).properties_text(
            replace(TUNED, netty_threads=None, max_batch_delay_ms=None), archive
        )
        == base
    )


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("load_models=parrot=echo.mar\n", "parrot"),
        ('load_models=parrot=echo.mar\nmodels={"parrot":{"1.0":{"batchSize":2}}}\n', "parrot"),
        ('load_models=echo.mar\nmodels={"parrot":{"1.0":{"batchSize":2}}}\n', "echo"),
    ],
)
def test_properties_text_uses_the_name_of_the_file_in_use(
    archive: Archive, base: str, name: str
) -> None:
    written = javaproperties.loads(DeploymentTarget(base).properties_text(TUNED, archive))
    assert json.loads(written["models"])[name]["1.0"]["batchSize"] == 16
    assert written["load_models"] == javaproperties.loads(base)["load_models"]


def test_properties_text_leaves_to_the_archive_what_it_decides(archive: Archive) -> None:
    decides = replace(archive, settings={"batchSize": 4})
    written = DeploymentTarget("load_models=all\n").properties_text(TUNED, decides)
    entry = json.loads(javaproperties.loads(written)["models"])["echo"]["1.0"]
    assert "batchSize" not in entry and entry["minWorkers"] == 2


def test_environment_text_adds_the_tuned_variables_to_those_in_use(archive: Archive) -> None:
    in_use = {
        "MODEL": "a b",
        "my.app": "1",
        "HF_TOKEN": "x",
        "MKL_NUM_THREADS": "9",
        "TS_JOB_QUEUE_SIZE": "7",
    }
    target = DeploymentTarget("enable_envvars_config=true\nload_models=all\n", {}, in_use)
    text = target.environment_text(TUNED, archive)
    assert text == "MODEL='a b'\nMKL_NUM_THREADS=1\nTS_JOB_QUEUE_SIZE=7\nOMP_NUM_THREADS=1\n"
    tuned = replace(TUNED, job_queue_size=9)
    notes = " ".join(target.notes(tuned, archive))
    assert target.secrets == {"HF_TOKEN"}
    assert "TS_JOB_QUEUE_SIZE in the environment take precedence" in notes
    assert "TS_JOB_QUEUE_SIZE=9\n" in target.environment_text(tuned, archive)


def test_notes_warn_of_bytes_that_torchserve_cannot_read(archive: Archive) -> None:
    latin, utf8 = "# caf\xe9\nload_models=all\n", "# caf\xc3\xa9\nload_models=all\n"
    assert "are not UTF-8" in " ".join(DeploymentTarget(latin).notes(ServerConfig(), archive))
    assert DeploymentTarget(utf8).notes(ServerConfig(), archive) == []


@pytest.mark.parametrize(
    ("base", "written"),
    [
        ("load_models=\nio_ratio=50\n", "load_models=echo.mar\nio_ratio=50\n"),
        ("load_models\r\n", "load_models=echo.mar\r\n"),
        ("load_models = ,\n", "load_models = echo.mar\n"),
        ("load_models:\nmodels={zoo:{1:{}}}\n", "load_models:all\nmodels={zoo:{1:{}}}\n"),
        ("load_models=all\n", "load_models=all\n"),
    ],
)
def test_properties_text_loads_the_archive_if_the_line_names_none(
    archive: Archive, base: str, written: str
) -> None:
    assert DeploymentTarget(base).properties_text(ServerConfig(), archive) == written


ZOO = Archive(Path("/models/zoo.mar"), "zoo", "1.0")
TWO = replace(TUNED, models={"zoo": {"workers": 5, "batch_size": 2}})


@pytest.mark.parametrize(
    "load_models", ["", "load_models=echo.mar,zoo.mar\n", "load_models=all\n", "load_models=echo.mar\n"]
)  # fmt: skip
def test_properties_text_changes_entries_of_both_models(archive: Archive, load_models: str) -> None:
    entries = {
        "echo": {"1.0": {"batchSize": 8, "marName": "echo.mar"}},
        "zoo": {"1.0": {"batchSize": 2, "minWorkers": 1, "maxWorkers": 7, "responseTimeout": 33}},
    }
    base = f"# ours\n{load_models}models={json.dumps(entries)}\nio_ratio=70\n"
    target = DeploymentTarget(base, others=(ZOO,))
    text = target.properties_text(TWO, archive)
    assert text.startswith("# ours\n") and "io_ratio=70\n" in text
    written = javaproperties.loads(text)
    models = json.loads(written["models"])
    assert models["echo"]["1.0"]["batchSize"] == 16
    assert models["zoo"]["1.0"] == {
        **entries["zoo"]["1.0"],
        **{"minWorkers": 5, "maxWorkers": 5},
    }
    assert written["load_models"] in ("all", "echo.mar,zoo.mar")
    after = target_of(text).config.models
    assert after == {"zoo": {"workers": 5, "batch_size": 2, "response_timeout_s": 33}}
    assert DeploymentTarget(text, others=(ZOO,)).properties_text(TWO, archive) == text
    if load_models != "load_models=echo.mar\n":  # Else, the base does not use the entry.
        kept = target.unmeasured(TWO, archive).models
        assert kept == {"zoo": {"response_timeout_s": 33}}


@pytest.mark.parametrize(
    ("load_models", "written"),
    [
        ("echo.mar, zoo.mar", "echo.mar, zoo.mar,zoo.mar"),
        ("echo.mar,http://host/zoo.mar", "echo.mar,http://host/zoo.mar"),
    ],
)
def test_properties_text_loads_what_torchserve_does_not_find(
    archive: Archive, load_models: str, written: str
) -> None:
    target = DeploymentTarget(f"load_models={load_models}\n", others=(ZOO,))
    assert javaproperties.loads(target.properties_text(TWO, archive))["load_models"] == written


def target_of(text: str) -> Deployment:
    archive = Archive(Path("/models/echo.mar"), "echo", "1.0")
    return Deployment.read(text, {}, archive).with_models([ZOO])


def test_properties_text_changes_a_snapshot_of_both_models(archive: Archive) -> None:
    numbers = {"minWorkers": 1, "maxWorkers": 1, "batchSize": 1, "maxBatchDelay": 9}
    numbers |= {"defaultVersion": True}
    snapshot = {
        "modelCount": 2,
        "models": {
            "echo": {"1.0": {**numbers, "marName": "echo.mar"}},
            "zoo": {"7": {**numbers, "marName": "zoo.mar"}},
        },
    }
    base = f"model_snapshot={json.dumps(snapshot)}\n"
    text = DeploymentTarget(base, others=(ZOO,)).properties_text(TWO, archive)
    models = json.loads(javaproperties.loads(text)["model_snapshot"])["models"]
    assert models["echo"]["1.0"]["batchSize"] == 16
    assert models["zoo"]["7"] == {
        **{**numbers, "marName": "zoo.mar"},
        **{"minWorkers": 5, "maxWorkers": 5, "batchSize": 2},
    }
