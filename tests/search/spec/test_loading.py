import re
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.cli.main import run_command
from search.errors import SpecError
from search.spec.loading import load_spec
from search.spec.preflight import preflight
from serving.config import ServerConfig
from tests.archives import make_archive

MODEL = {"archive": "echo.mar", "requests": "requests.jsonl"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_archive(tmp_path)
    (tmp_path / "requests.jsonl").write_text('{"body": {"a": 1}}\n')
    return tmp_path


def write(folder: Path, **sections: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"model": MODEL, **sections}))
    return path


def test_a_small_specification_is_whole(folder: Path) -> None:
    spec = load_spec(write(folder))
    assert spec.name == "study"
    assert spec.archive().name == "echo"
    assert len(spec.payloads()) == 1
    assert len(spec.build_space(2).dimensions) == 6
    assert load_spec(write(folder, **{"name": "a", **{}})).name == "a"


def test_a_port_in_use_is_refused_before_anything_starts(folder: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SpecError) as error:
            preflight(load_spec(write(folder, serving={"ports": {"inference": port}})))
    (problem,) = error.value.problems
    assert problem.startswith(f"serving.ports.inference: port {port} is in use")


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"space": {"batch_size": {"low": 0, "high": 4}}}, "space.batch_size.low: must be ≥ 1, got 0"),
        ({"space": {"workers": {"low": 3, "high": 2}}}, "space.workers: low 3 is above high 2"),
        ({"space": {"workers": {"low": 3}}}, "space.workers.high: is missing"),
        ({"space": {"workers": [2, 0]}}, "space.workers.1: must be ≥ 1, got 0"),
        ({"space": {"workers": []}}, "space.workers: is empty"),
        ({"space": {"workers": "many"}}, "space.workers: must be an integer, got 'many'"),
        ({"space": {"wrokers": 2}}, "space.wrokers: unknown key; known keys are workers, "),
        ({"space": {"properties": {"io": 2}}}, "space.properties.io: property io is not known to TorchServe"),
        ({"model": {"archive": "no.mar", "requests": "requests.jsonl"}}, "model.archive: .*no.mar does not exist"),
        ({"model": {"archive": "echo.mar", "requests": "no"}}, "model.requests: .*no does not exist"),
        ({"model": {"archive": "requests.jsonl", "requests": "requests.jsonl"}}, "model.archive: .*not a model archive"),
        ({"model": {"archive": "echo.mar", "requests": "echo.mar"}}, "model.requests: requests file"),
        ({"model": {"archive": "echo.mar"}}, "model.requests: is missing"),
        ({"load": {"arrivals": "bursty"}}, "load.arrivals: must be 'constant' or 'poisson', got 'bursty'"),
        ({"load": {"timeout_s": "10"}}, "load.timeout_s: must be a number, got '10'"),
        ({"load": {"cores": [4096]}}, "load.cores.0: this host has no core 4096"),
        ({"goal": {"window_s": 9, "window_limit_s": 5}}, "goal.window_limit_s: must be ≥ window_s 9.0, got 5.0"),
        ({"search": {"trials": 0}}, "search.trials: must be ≥ 1, got 0"),
        ({"serving": {"ports": {"metrics": 9, "inference": 9}}}, "serving.ports.metrics: port 9 is also the port of inference"),
        ({"space": {"workers": 3_000_000_000}}, "space.workers: must be < 2147483648, got 3000000000"),
        ({"space": {"environment": {"FOO": None}}}, "space.environment.FOO: must be a number, a text"),
        ({"goal": {"range": 3}}, "goal.range: unknown key"),
        ({"goal": {"warmup_limit_s": float("inf")}}, "goal.warmup_limit_s: must be a finite number"),
        ({"goal": {"window_s": 15, "search_limit_s": 10}}, "goal.search_limit_s: must be ≥ window_s 15.0, got 10.0"),
        ({"goal": {"window_s": 30}}, "goal.window_limit_s: must be ≥ window_s 30.0, got 20.0"),
        ({"output": {"folder": "~nosuchuser/runs"}}, "output.folder: ~nosuchuser/runs is in the home of a user who"),
        ({"model": {"archive": "~nosuchuser/a.mar", "requests": "requests.jsonl"}}, "model.archive: ~nosuchuser/a.mar is in the home"),
        ({"model": {"archive": "m" * 300, "requests": "requests.jsonl"}}, "model.archive: .* cannot be read: File name too long"),
        ({"serving": {"python": "/bin/true"}}, "serving.python: no Python: the interpreter /bin/true does not run: it is no Python"),
        ({"space": {"mkl_threads": 1, "environment": {"OMP_NUM_THREADS": 2}}}, "space: environment variable OMP_NUM_THREADS"),
        ({"serving": {"baseline": "no.properties"}}, "serving.baseline: .*does not exist"),
        ({"serving": {"baseline": "requests.jsonl"}}, "serving.baseline: .*not known to TorchServe"),
        ({"serving": {"java": "/no/java"}}, "serving.java: no Java: serving.java names /no/java"),
        ({"serving": {"python": "/no/python"}}, "serving.python: no Python: the interpreter /no/python"),
        ({"name": "a/b"}, "name: must consist of letters"),
        ({"extra": 1}, "extra: unknown key"),
    ],
)  # fmt: skip
def test_a_mistake_is_a_sentence_with_its_path(folder: Path, sections: dict, sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence) as caught:
        preflight(load_spec(write(folder, **sections)))
    assert len(caught.value.problems) == 1, caught.value.problems


def test_all_mistakes_are_told_at_once(folder: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(
            write(
                folder,
                load={"timeout_s": 0},
                search={"trials": 0},
                model={},
                space={"properties": {"io": 1, "job_queue_size": 2}, "workers": 0},
                serving={
                    "java": "/no/java",
                    "python": "/no/python",
                    "ready_timeout_s": 0,
                    "ports": {"inference": 9000, "metrics": 9000, "management": 9000},
                },
                goal={"window_s": 9, "window_limit_s": 5},
            )
        )
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "model.archive",
        "model.requests",
        "serving.ready_timeout_s",
        "serving.ports.management",
        "serving.ports.metrics",
        "space.workers",
        "space.properties.io",
        "space.properties.job_queue_size",
        "load.timeout_s",
        "goal.window_limit_s",
        "search.trials",
    ]


def test_threads_of_the_environment_take_the_place_of_mkl_threads(folder: Path) -> None:
    named = {"mkl_threads": None, "environment": {"OMP_NUM_THREADS": [1, 2]}}
    names = [d.name for d in load_spec(write(folder, space=named)).build_space(2).dimensions]
    assert "environment.OMP_NUM_THREADS" in names and "mkl_threads" not in names


def test_a_space_in_which_nothing_varies_is_refused(folder: Path) -> None:
    from search.spec.space import DEFAULT_SETTINGS

    path = write(folder, space=dict.fromkeys(DEFAULT_SETTINGS, 1))
    with pytest.raises(SpecError, match="space: nothing varies"):
        preflight(load_spec(path))
    preflight(load_spec(path), allow_fixed_space=True)


def test_the_baseline_is_the_users_file_and_its_environment(folder: Path) -> None:
    (folder / "config.properties").write_text("number_of_netty_threads=8\n")
    (folder / "environment").write_text("OMP_NUM_THREADS=1\nMKL_NUM_THREADS=1\n")
    spec = load_spec(write(folder, serving={"baseline": "config.properties"}))
    assert spec.baseline() == ServerConfig(netty_threads=8, mkl_threads=1)


def test_what_was_resolved_is_read_back_the_same(folder: Path) -> None:
    spec = load_spec(write(folder, space={"netty_threads": None, "batch_size": [1, 8]}))
    resolved = spec.resolved()
    assert resolved["space"]["workers"]["low"] == 1
    (folder / "again.yaml").write_text(yaml.safe_dump(resolved))
    assert load_spec(folder / "again.yaml").build_space() == spec.build_space()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [", "is not YAML in line 1"),
        ("- 1", "holds no specification"),
        ("name: 2024-13-45", "is not YAML"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_specification_is_refused(
    tmp_path: Path, text: str | None, sentence: str
) -> None:
    path = tmp_path / "bad.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SpecError, match=sentence):
        load_spec(path)


def test_the_starter_is_a_whole_specification(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert run_command(["init", "mine.yaml"]) == 0
    make_archive(folder, name="my-model")
    assert load_spec(folder / "mine.yaml").name == "my-model"
    # What is commented out is a specification too.
    text = re.sub(r'(?m)^# (?=(  )*["\w-]+:)', "", (folder / "mine.yaml").read_text())
    data = yaml.safe_load(text)
    del data["serving"]["python"], data["serving"]["java"], data["serving"]["baseline"]
    write(folder, **data)
    assert {"model", "space", "load", "goal", "search", "serving"} <= set(data)
    assert load_spec(folder / "study.yaml").build_space(2).common.job_queue_size == 1000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["tune", "no.yaml"], "no.yaml cannot be read"),
        (["measure"], "needs SPEC or --url, and not both"),
        (["measure", "--url", "http://127.0.0.1:1"], "needs --requests"),
        (["report", "."], "is not a run's folder"),
        (["export", "."], "is not a run's folder"),
        (["init", "."], "exists already"),
        (["tune"], "Missing argument"),
        (["frobnicate"], "No such command"),
    ],
)
def test_a_users_mistake_ends_with_status_2_and_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(arguments) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert "Traceback" not in captured.err and not captured.out
