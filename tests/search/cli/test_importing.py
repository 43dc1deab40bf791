"""The command import."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from search.cli.main import run_command
from search.spec.loading import load_spec
from servetune.errors import ExitStatus
from serving.configuration.config import ServerConfig
from tests.archives import make_archive

SNAPSHOT = (
    'model_snapshot={"modelCount":1,"models":{"pets":{"1.0":{"marName":"pets.mar",'
    '"defaultVersion":true,"minWorkers":3,"maxWorkers":3,"batchSize":16,"maxBatchDelay":50}}}}\n'
)


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_bytes(text.encode("latin-1"))
    return str(path)


def imported(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert run_command(["import", *arguments, "--json"]) == ExitStatus.OK
    return dict(json.loads(capsys.readouterr().out))


@pytest.mark.parametrize(
    ("name", "text", "model", "settings"),
    [
        ("config.properties", SNAPSHOT, "pets", {"workers": 3, "batch_size": 16, "max_batch_delay_ms": 50}),
        ("ts.config", "load_models=dog=pets.mar\njob_queue_size=5\n", "dog", {"job_queue_size": 5}),
        ("c.properties", 'models={"a":{"2.0":{"batchSize":2}}}\n', "a", {"batch_size": 2}),
        ("empty.properties", "# r\xe9gl\xe9\r\n", None, {}),
        ("model-config.yaml", "batchSize: 4\nminWorkers: 1\nmaxWorkers: 1\n", None, {"batch_size": 4, "workers": 1}),
    ],
)  # fmt: skip
def test_import_shows_model_and_settings(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    text: str,
    model: str,
    settings: dict,
) -> None:
    data = imported(capsys, write(tmp_path, name, text))
    assert (data["model"], data["settings"]) == (model, settings)
    assert "was not read" in data["notes"][-1]


def test_import_reads_an_environment_without_its_secrets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = '{"SAGEMAKER_TS_BATCH_SIZE": "8", "HF_TOKEN": "hidden", "MODEL": "x"}'
    path = write(tmp_path, "sagemaker.json", text)
    data = imported(capsys, path)
    assert data["settings"]["batch_size"] == 8 and data["secrets"] == ["HF_TOKEN"]
    assert run_command(["import", path]) == ExitStatus.OK
    output = capsys.readouterr().out
    assert "hidden" not in json.dumps(data) + output
    assert "the container sets the others to its defaults" in output


def test_import_reads_properties_with_their_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    properties = write(tmp_path, "config.properties", "enable_envvars_config=true\n")
    other = write(tmp_path, "other.env", "TS_JOB_QUEUE_SIZE=7\n")
    assert imported(capsys, properties, other)["settings"]["job_queue_size"] == 7
    write(tmp_path, "environment", "TS_JOB_QUEUE_SIZE=8\n")
    assert imported(capsys, properties)["settings"]["job_queue_size"] == 8


def test_import_names_other_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "config.properties", "load_models=pets.mar,zoo.mar\n")
    data = imported(capsys, path)
    assert (data["model"], data["other_models"]) == ("pets", ["zoo"])
    archive = make_archive(tmp_path, name="zoo")
    data = imported(capsys, path, "--archive", str(archive))
    assert (data["model"], data["other_models"]) == ("zoo", ["pets"])


@pytest.mark.parametrize(
    ("comment", "is_noted"), [("r\xe9glages", True), ("r\xc3\xa9glages", False)]
)
def test_import_notes_bytes_that_the_command_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], comment: str, is_noted: bool
) -> None:
    path = write(tmp_path, "config.properties", f"# {comment}\njob_queue_size=10\n")
    assert ("are not UTF-8" in " ".join(imported(capsys, path)["notes"])) is is_noted


def test_import_says_that_a_run_leaves_out_another_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = '"1.0":{"batchSize":1},"2.0":{"batchSize":2}'
    path = write(
        tmp_path, "config.properties", f'models={{"pets":{{{entries}}},"zoo":{{"1.0":{{}}}}}}\n'
    )
    notes = imported(capsys, path)["notes"]
    assert "other versions of the model, left out: pets 2.0" in notes
    assert "other models: zoo 1.0; a run serves them too (see serving.models)" in notes


@pytest.mark.parametrize("archive", ["echo.mar", None])
def test_import_writes_a_specification_that_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], archive: str | None
) -> None:
    make_archive(tmp_path)
    path = write(tmp_path, "config.properties", "load_models=echo.mar\njob_queue_size=5\n")
    into = tmp_path / "specs" / "echo.yaml"
    into.parent.mkdir()
    options = ["--archive", str(tmp_path / archive)] if archive else []
    assert run_command(["import", path, *options, "--into", str(into)]) == ExitStatus.OK
    assert f"servetune tune {into}" in capsys.readouterr().out
    spec = load_spec(into)
    assert spec.name == "echo" and "# space:" in into.read_text()
    if archive:
        assert spec.baseline() == ServerConfig(job_queue_size=5)
    assert run_command(["import", path, "--into", str(into)]) == ExitStatus.BAD_INPUT


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"c.properties": "job_queue_size=1_000\n"}, "must be an integer that Java reads"),
        ({"c.properties": 'models={\n "a": {}\n}\n'}, "needs a backslash at the end of each line"),
        ({"a.properties": "", "b.properties": ""}, "are both read as properties; pass one of them"),
        ({"c.env": "A\n"}, "line 1 of the environment file is not NAME=value"),
        ({"m.yaml": "- a\n"}, "must be a mapping of settings"),
    ],
)
def test_import_refuses_what_torchserve_cannot_start_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, str], sentence: str
) -> None:
    paths = [write(tmp_path, name, text) for name, text in files.items()]
    assert run_command(["import", *paths]) != ExitStatus.OK
    error = capsys.readouterr().err
    assert sentence in " ".join(error.split()) and "Traceback" not in error


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_import_names_the_settings_that_the_archive_replaces(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], order: tuple[int, ...]
) -> None:
    files = [
        write(tmp_path, "model-config.yaml", "batchSize: 4\n"),
        write(tmp_path, "config.properties", "job_queue_size=5\n"),
        write(tmp_path, "server.env", "A=1\n"),
    ]
    given = [files[index] for index in order]
    archive = str(make_archive(tmp_path, name="pets"))
    assert run_command(["import", *given, "--archive", archive]) == ExitStatus.BAD_INPUT
    message = "".join(capsys.readouterr().err.split("\n"))
    assert f"the archive has its own settings; leave out {files[0]}" in message
