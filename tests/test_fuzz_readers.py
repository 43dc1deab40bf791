"""Generated files of deployments: each reader returns a value or raises one sentence.

`FUZZ_EXAMPLES` is the number of inputs of each kind.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from search.answer.operating_points import OperatingPoint
from search.errors import RunError
from search.export.drift import detect_drift
from search.export.exported_files import ExportedFiles
from search.export.recheck import read_history
from search.formats import MEASUREMENTS_VERSION, TRIALS_VERSION
from search.report.answer_plots import latency_by_rate
from search.service.trial_views import trial_detail_view
from search.study.run_folder import Run
from servetune.errors import ServetuneError
from serving.archive import Archive
from serving.configuration.deployment import Deployment
from serving.configuration.environment import parse_environment
from serving.errors import ConfigError
from serving.platforms.command import find_command
from serving.platforms.reading import read_platform
from tests.fuzzing import TIMEOUT_S, fuzz
from tests.results import WINDOW, trial_result
from tests.test_fuzz import key_paths, values

pytestmark = pytest.mark.timeout(TIMEOUT_S)
MANIFEST = {
    "model": {
        "modelName": "echo",
        "modelVersion": "1.0",
        "handler": "handler.py:handle",
        "configFile": "model-config.yaml",
    }
}
MODEL_CONFIG = {
    "minWorkers": 1,
    "maxWorkers": 2,
    "batchSize": 8,
    "maxBatchDelay": 50,
    "responseTimeout": 120,
    "jobQueueSize": 100,
    "deviceType": "cpu",
    "parallelType": "",
    "handler": {"a": [1, 2]},
}
VARIABLES = {"PrimaryContainer": {"Image": "x", "Environment": {"SAGEMAKER_TS_BATCH_SIZE": "8"}}}
_CONTAINER = {
    "name": "torchserve",
    "image": "pytorch/torchserve:0.12.0-cpu",
    "args": ["torchserve", "--start", "--ts-config", "/ts/config.properties"],
    "env": [{"name": "OMP_NUM_THREADS", "value": "2"}, {"name": "B", "valueFrom": {}}],
    "resources": {"limits": {"cpu": "1500m", "memory": "2Gi"}},
    "volumeMounts": [{"name": "config", "mountPath": "/ts"}],
}
PLATFORMS: dict[str, list[dict[str, Any]]] = {
    "compose.yaml": [
        {
            "services": {
                "ts": {
                    "image": "pytorch/torchserve:0.12.0-cpu",
                    "command": ["torchserve", "--ts-config=/ts/config.properties"],
                    "environment": {"OMP_NUM_THREADS": 2},
                    "env_file": ["environment"],
                    "volumes": ["./config.properties:/ts/config.properties:ro"],
                    "deploy": {"resources": {"limits": {"cpus": "0.5", "memory": "512M"}}},
                }
            }
        }
    ],
    "deployment.yaml": [
        {
            "kind": "Deployment",
            "metadata": {"name": "ts"},
            "spec": {
                "template": {
                    "spec": {
                        "containers": [_CONTAINER],
                        "volumes": [{"name": "config", "configMap": {"name": "ts"}}],
                    }
                }
            },
        },
        {
            "kind": "ConfigMap",
            "metadata": {"name": "ts"},
            "data": {"config.properties": "job_queue_size=7\n"},
        },
    ],
    "service.yaml": [
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "ts"},
            "spec": {
                "predictor": {
                    "model": {
                        "modelFormat": {"name": "pytorch"},
                        "storageUri": "pvc://models/ts",
                        "env": [{"name": "OMP_NUM_THREADS", "value": "2"}],
                        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                    }
                }
            },
        }
    ],
}
LINES = {
    "torchserve.service": [
        "[Unit]",
        "[Service]",
        "ExecStart=/bin/torchserve --foreground --ts-config config.properties",
        "Environment=OMP_NUM_THREADS=2 'B=a b'",
        "EnvironmentFile=-environment",
        "CPUQuota=150%",
        "MemoryMax=2G",
        'ExecStart=/bin/sh -c "torchserve',
        "CPUQuota=%",
        "Environment=\\",
    ],
    "Dockerfile": [
        "FROM pytorch/torchserve:0.12.0-cpu",
        "COPY config.properties /home/model-server/",
        "ADD --chown=a [ config.properties",
        "ENV OMP_NUM_THREADS=2 B",
        "ENV A 'b",
        'CMD ["torchserve", "--ts-config", "/home/model-server/config.properties"]',
        'CMD ["torchserve"',
        "ENTRYPOINT torchserve --start \\",
        "ARG X=${Y:-z}",
        "WORKDIR /a",
    ],
}
#: The record of a trial in trials.jsonl.
RECORD = {"format_version": TRIALS_VERSION, **trial_result(3, 100.0).to_dict()}
MEASUREMENTS = {
    "format_version": MEASUREMENTS_VERSION,
    "result": trial_result(3, 100.0).to_dict(),
    "probes": [{"rate_rps": 40.0, "verdict": "sustained", "reason": ""}],
    "windows": [WINDOW],
}
texts = st.one_of(st.binary(max_size=100), st.text(max_size=80).map(str.encode))


@st.composite
def mutated(draw: st.DrawFn, data: Any) -> Any:
    """Draw data with one to three values replaced, removed or added."""
    data = copy.deepcopy(data)
    for _ in range(draw(st.integers(1, 3))):
        paths = list(key_paths(data))
        if not paths:
            break
        *parent, last = draw(st.sampled_from(paths))
        section = data
        for key in parent:
            section = section[key]
        match draw(st.sampled_from(["replace", "replace", "remove", "add"])):
            case "remove":
                del section[last]
            case "add" if isinstance(section, dict):
                section[draw(st.text(max_size=8))] = draw(values)
            case _:
                section[last] = draw(values)
    return data


def yaml_bytes(*documents: Any) -> bytes:
    return yaml.dump_all(documents, allow_unicode=True).encode(errors="surrogatepass")


def assert_read_or_refused(read: Callable[[], object], kind: type[ServetuneError]) -> None:
    """Read; an error must be of this kind and have a message."""
    try:
        read()
    except kind as error:
        assert str(error).strip() and "Traceback" not in str(error)
        assert len(str(error)) < 20_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the files that those of a platform name."""
    folder = tmp_path_factory.mktemp("readers")
    (folder / "config.properties").write_text("job_queue_size=7\n")
    (folder / "environment").write_text("OMP_NUM_THREADS=2\n")
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model; the tests write its manifest and its configuration."""
    folder = tmp_path_factory.mktemp("archives") / "echo"
    (folder / "MAR-INF").mkdir(parents=True)
    (folder / "handler.py").write_text("")
    return folder


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with one trial; the test writes its measurements."""
    run = Run(tmp_path_factory.mktemp("measured"))
    run.append(trial_result(3, 100.0))
    return run


@fuzz
@given(
    text=st.one_of(
        st.text(max_size=80),
        mutated(VARIABLES).map(lambda data: json.dumps(data, default=str)),
        st.text(alphabet='{}[]:,"ab1 ', max_size=40).map(lambda text: "{" + text),
        st.lists(st.sampled_from(["A=1", "export B='x'", '"', "='", "A", "#", "\0=\n"])).map(
            "\n".join
        ),
    )
)
def test_parse_environment_reads_or_refuses(text: str) -> None:
    assert_read_or_refused(lambda: parse_environment(text), ConfigError)


@fuzz
@given(
    manifest=st.one_of(
        st.just(json.dumps(MANIFEST).encode()),
        mutated(MANIFEST).map(lambda data: json.dumps(data, default=str).encode()),
        texts,
    ),
    config=st.one_of(
        mutated(MODEL_CONFIG).map(yaml_bytes),
        texts,
        st.sampled_from([b"a: 2026-99-99", b"? [a]: b", b"!!python/object:os.system x"]),
        st.lists(st.sampled_from([b"minWorkers: 1", b"batchSize: 1e3", b"- a", b"a: &b [*b]"])).map(
            b"\n".join
        ),
    ),
)
def test_archive_read_reads_or_refuses(archive: Path, manifest: bytes, config: bytes) -> None:
    (archive / "MAR-INF" / "MANIFEST.json").write_bytes(manifest)
    (archive / "model-config.yaml").write_bytes(config)

    def read() -> None:
        found = Archive.read(archive)
        Deployment.read("load_models=all\n", {}, found)
        assert found.overridden_keys >= set()

    assert_read_or_refused(read, ServetuneError)


@pytest.mark.parametrize("name", PLATFORMS)
def test_read_platform_reads_or_refuses_manifests(folder: Path, name: str) -> None:
    @fuzz
    @given(text=st.one_of(mutated(PLATFORMS[name]).map(lambda d: yaml_bytes(*d)), texts))
    def check(text: bytes) -> None:
        (folder / name).write_bytes(text)
        assert_read_or_refused(lambda: read_platform(folder / name), ConfigError)

    check()
    (folder / name).unlink()


@pytest.mark.parametrize("name", LINES)
def test_read_platform_reads_or_refuses_lines(folder: Path, name: str) -> None:
    lines = st.one_of(st.sampled_from(LINES[name]), st.text(max_size=20))

    @fuzz
    @given(text=st.one_of(st.lists(lines, max_size=8).map(lambda x: "\n".join(x).encode()), texts))
    def check(text: bytes) -> None:
        (folder / name).write_bytes(text)
        assert_read_or_refused(lambda: read_platform(folder / name), ConfigError)

    check()
    (folder / name).unlink()


@fuzz
@given(data=mutated(RECORD))
def test_results_read_or_refuse_a_record(folder: Path, data: dict[str, Any]) -> None:
    line = json.dumps(data, default=str)
    (folder / "trials.jsonl").write_text(f"{line}\n", errors="surrogatepass")
    assert_read_or_refused(Run(folder).results, RunError)


@fuzz
@given(
    text=st.one_of(
        texts,
        mutated(MEASUREMENTS).map(lambda data: json.dumps(data, default=str).encode()),
        st.integers(0, 800).map(lambda end: json.dumps(MEASUREMENTS).encode()[:end]),
    )
)
def test_measurements_are_read_or_refused(measured: Run, text: bytes) -> None:
    (result,) = measured.results()
    for folder in (measured.trial_folder(3), measured.folder / "confirm" / "plan" / "0-3"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "measurements.json").write_bytes(text)
    assert_read_or_refused(lambda: measured.dataframe("windows"), RunError)
    assert_read_or_refused(lambda: trial_detail_view(measured, result), RunError)
    assert len(list(measured.confirmation_visits())) <= 1
    point = OperatingPoint(3, result.config, 100.0)
    assert len(latency_by_rate(point, measured)) <= 1


@fuzz
@given(text=st.one_of(texts, values.map(lambda value: json.dumps(value, default=str).encode())))
def test_exported_files_read_or_refuse_a_claim(folder: Path, text: bytes) -> None:
    (folder / "trial.json").write_bytes(text)
    try:
        assert_read_or_refused(lambda: ExportedFiles.read(folder, None, folder), ServetuneError)
    finally:
        (folder / "trial.json").unlink()


@fuzz
@given(
    lines=st.lists(
        st.one_of(
            texts,
            values.map(lambda value: json.dumps(value, default=str).encode()),
            st.floats().map(lambda rate: json.dumps({"estimate_rps": rate}).encode()),
        ),
        max_size=8,
    )
)
def test_read_history_reads_or_refuses(folder: Path, lines: list[bytes]) -> None:
    history = folder / "recheck.jsonl"
    history.write_bytes(b"\n".join(lines))
    assert_read_or_refused(lambda: detect_drift(100.0, read_history(history)), RunError)


SCRIPT = [
    *("#!/bin/bash", "torchserve --start", "torchserve --ts-config $1 \\", 'exec "$@"', "shift"),
    *(
        "/start.sh",
        "cd /a && ./start.sh",
        "if [ a ]; then",
        "fi",
        "sh -c 'torchserve",
        "export A=1",
    ),
    *("cat <<EOF >/config.properties", "EOF", "A=$(", "`", "case $1 in a)", "esac", "# it's"),
]


@fuzz
@given(lines=st.lists(st.one_of(st.sampled_from(SCRIPT), st.text(max_size=20)), max_size=12))
def test_find_command_follows_a_script_or_not(lines: list[str]) -> None:
    text = "\n".join(lines)
    found = find_command(["bash", "/start.sh", "serve"], {}, lambda path: text)
    assert found is None or all("$(…)" not in word for word in found.options)
