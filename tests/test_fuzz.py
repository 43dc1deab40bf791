"""Generated input: every command ends with a message and exit status 2, and changes no file.

`FUZZ_EXAMPLES` is the number of inputs of each kind. The requests to the API are generated in
tests/search/service/test_openapi.py.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from hypothesis import given
from hypothesis import strategies as st

from search.cli.main import run_command
from search.errors import RunError
from search.service.job_views import JobViews
from search.service.jobs import JobStore
from search.service.run_results import RunResults
from search.study.run_folder import Run
from servetune.errors import ServetuneError
from tests.fuzzing import TIMEOUT_S, fuzz
from tests.specifications import make_model_files

pytestmark = pytest.mark.timeout(TIMEOUT_S)
VALID: dict[str, Any] = {
    "name": "fuzz",
    "model": {"archive": "echo.mar", "requests": "requests.jsonl"},
    "space": {
        "workers": {"low": 1, "high": 4, "log": True},
        "batch_size": [1, 8, 32],
        "mkl_threads": None,
        "job_queue_size": 100,
        "properties": {"enable_envvars_config": [True, False]},
        "environment": {"A": ["1", "2"]},
        "jvm": {"-Xmx": "1g"},
    },
    "serving": {
        "ready_timeout_s": 60,
        "limits": {"cpus": 1.5, "memory_mb": 900},
        "ports": {"inference": 0},
    },
    "load": {"arrivals": "poisson", "timeout_s": 5, "processes": 1, "cores": []},
    "goal": {"width": 0.05, "limits": {"p99_s": 1.0}},
    "search": {"trials": 3, "time_budget_s": 10, "seed": 1, "target_rps": 5},
    "confirm": {"rounds": 3, "finalists": 2},
    "cluster": {"address": None, "heterogeneous_hosts": "keep"},
    "output": {"folder": "runs", "mlflow": "http://127.0.0.1:5000"},
    "notify": [{"url": "https://hooks.example.org/a?b=c", "on": ["finished", "stopped"]}],
}
SWEEP: dict[str, Any] = {
    "model": VALID["model"],
    "space": {"workers": [1, 2]},
    "sweep": {
        "loads": [{"kind": "burst", "requests": 10}, {"kind": "interval", "rate_rps": 10}],
        "points": [{"batch_size": 4}],
        "repeats": 2,
    },
}
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["1e3", "-0", "~", "/", "..", "/dev/null", "a\x00b", "\ud800", "${HOME}"]),
    st.sampled_from(
        ["http://[::1", "http://a:b@c/", "postgresql://a:b@c:d/e", "sqlite:////none/x"]
    ),
    st.dates(),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def key_paths(data: Any, parent: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every key and index in nested data."""
    entries = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in entries:
        yield (*parent, key)
        if isinstance(value, dict | list):
            yield from key_paths(value, (*parent, key))


@st.composite
def mutated_specifications(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a specification with one to three values replaced, removed or added."""
    data = copy.deepcopy(draw(st.sampled_from([VALID, SWEEP])))
    for _ in range(draw(st.integers(1, 3))):
        *parent, last = draw(st.sampled_from(list(key_paths(data)) or [("name",)]))
        section: Any = data
        for key in parent:
            section = section[key]
        match draw(st.sampled_from(["replace", "replace", "remove", "add"])):
            case "replace":
                section[last] = draw(values)
            case "remove":
                del section[last]
            case _ if isinstance(section, dict):
                section[draw(st.text(max_size=8))] = draw(values)
    return data


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model; a valid specification in it is refused instead of run."""

    def refuse(spec: object) -> None:
        raise RunError("accepted")

    make_model_files(tmp_path)
    # To build the commands takes longer than to read a specification.
    monkeypatch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
    monkeypatch.setattr("search.study.driver.create_run", refuse)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_refused(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> None:
    """Run a command; it must refuse with a message and leave the folder as it is."""
    files = read_files(folder)
    status = run_command(list(arguments))
    message = capsys.readouterr().err
    assert status == 2, message
    assert message.strip() and "Traceback" not in message and len(message) < 20_000
    assert read_files(folder) == files


@fuzz
@given(data=mutated_specifications())
def test_run_command_refuses_a_mutated_specification(
    folder: Path, capsys: pytest.CaptureFixture[str], data: Any
) -> None:
    try:
        text = yaml.safe_dump(data, allow_unicode=True).encode(errors="surrogatepass")
    except yaml.YAMLError:
        return
    (folder / "study.yaml").write_bytes(text)
    assert_refused(capsys, folder, "sweep" if "sweep" in data else "tune", "study.yaml")


@fuzz
@given(
    text=st.one_of(
        st.binary(max_size=200), st.text(max_size=200).map(lambda t: t.encode(errors="replace"))
    )
)
def test_run_command_refuses_a_file_that_is_no_specification(
    folder: Path, capsys: pytest.CaptureFixture[str], text: bytes
) -> None:
    (folder / "study.yaml").write_bytes(text)
    assert_refused(capsys, folder, "tune", "study.yaml")


models = json.dumps({"echo": {"1.0": {"minWorkers": 1, "maxWorkers": 1, "batchSize": 4}}})
lines = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        [
            f"models={models}",
            "models={",
            "models={\\n}",
            'models={"echo": {"1.0": {"batchSize": "x"}}}',
            'models={"echo": [1]}',
            "number_of_netty_threads=2",
            "number_of_netty_threads=two",
            "job_queue_size=-1",
            "vmargs=-Xmx1g -Dx=\u2028",
            "inference_address=nowhere",
            "unknown_property=1",
            "a\\",
            "\\u00zz=1",
        ]
    ),
    st.tuples(
        st.sampled_from(["job_queue_size", "models", "vmargs", "x"]), st.text(max_size=30)
    ).map("=".join),
)


@fuzz
@given(text=st.lists(lines, max_size=5).map("\n".join), variables=st.text(max_size=60))
def test_run_command_refuses_a_generated_baseline(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, variables: str
) -> None:
    (folder / "config.properties").write_bytes(text.encode(errors="replace"))
    (folder / "environment").write_bytes(variables.encode(errors="replace"))
    data = {**VALID, "serving": {"baseline": "config.properties"}}
    (folder / "study.yaml").write_text(yaml.safe_dump(data))
    assert_refused(capsys, folder, "tune", "study.yaml")


requests = st.one_of(
    st.text(max_size=60),
    values.map(lambda value: json.dumps(value, default=str)),
    st.fixed_dictionaries(
        {},
        optional={
            "body": values,
            "file": st.sampled_from(["echo.mar", "no such file", ".", "a\x00"]),
            "content_type": values,
            "headers": values,
            "expect": st.one_of(values, st.just({"matches": "("}), st.just({"contains": 1})),
            "path": values,
            "method": values,
            "status": values,
            "multipart": values,
            "body_base64": values,
            "other": scalars,
        },
    ).map(lambda value: json.dumps(value, default=str)),
)


@fuzz
@given(text=st.lists(requests, max_size=4).map("\n".join))
def test_run_command_refuses_generated_requests(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (folder / "requests.jsonl").write_bytes(text.encode(errors="replace"))
    (folder / "study.yaml").write_text(yaml.safe_dump(VALID))
    assert_refused(capsys, folder, "tune", "study.yaml")


#: Lines as they may be in files that a full disk, a killed process or an editor left.
record_lines = st.one_of(
    st.binary(max_size=80),
    values.map(lambda value: json.dumps(value, default=str).encode()),
    st.fixed_dictionaries(
        {"format_version": st.sampled_from([1, 2, 3, "2", None])},
        optional={
            **{"kind": values, "time_s": values, "data": values, "state": values},
            **{"name": values, "number": values, "attempt": values, "reason": values},
        },
    ).map(lambda value: json.dumps(value, default=str).encode()),
    st.integers(0, 60).map(lambda n: b'{"format_version": 2, "kind": "state", "time_s": 1}'[:n]),
)


@fuzz
@given(lines=st.lists(record_lines, max_size=5), file=st.integers(0, 5))
def test_service_reads_any_files_of_a_job(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], file: int
) -> None:
    store = JobStore(tmp_path_factory.getbasetemp() / "fuzz-service")
    jobs = store.all()
    job = jobs[0] if jobs else store.add(store.new_folder(), "a", {})
    run = Run(job.folder / "runs" / "a")
    run.folder.mkdir(parents=True, exist_ok=True)
    paths = [job.folder / name for name in ("job.json", "events.jsonl", "end.json", "process.json")]
    paths += [run.folder / name for name in ("spec.yaml", "trials.jsonl")]
    before = {path: path.read_bytes() if path.is_file() else None for path in paths}
    paths[file].write_bytes(b"\n".join(lines))
    try:
        view = JobViews(RunResults(), {}).view(job)
        assert view.id == job.id and view.model_dump_json()
        assert job.is_active() in (True, False)
        store.records()
        try:
            for event in [*job.events.read(), *job.events.tail()]:
                assert job.events.is_event_id(event.id) and {**event.data} == event.data
        except RunError as error:
            assert "format_version" in str(error)
        try:
            job.record()
            job.ended()
            run.results()
        except ServetuneError as error:
            assert len(str(error).splitlines()) == 1
    finally:
        for path, text in before.items():
            if text is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(text)
