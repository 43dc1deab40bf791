"""Reading a specification, and the sentence for each mistake in it."""

import re
from pathlib import Path

import pytest
import yaml

from search.errors import SpecError
from search.spec.loading import STARTER_PATH, load_spec
from tests.archives import make_archive
from tests.specifications import write_spec


def test_load_spec_takes_the_default_name_from_the_file(folder: Path) -> None:
    assert load_spec(write_spec(folder)).name == "study"
    assert load_spec(write_spec(folder, name="a")).name == "a"


def test_load_spec_resolves_paths_from_the_folder_of_the_file(folder: Path) -> None:
    spec = load_spec(write_spec(folder, search={"warm_start": "../earlier"}))
    assert spec.model.archive == folder / "echo.mar"
    assert spec.model.requests == folder / "requests.jsonl"
    assert spec.search.warm_start == folder.parent / "earlier"


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"space": {"batch_size": {"low": 0, "high": 4}}}, "space.batch_size.low: must be at least 1 (got 0)"),
        ({"space": {"workers": {"low": 3, "high": 2}}}, "space.workers: low 3 is above high 2"),
        ({"space": {"workers": {"low": 3}}}, "space.workers.high: is missing"),
        ({"space": {"workers": [2, 0]}}, "space.workers.1: must be at least 1 (got 0)"),
        ({"space": {"workers": []}}, "space.workers: is empty"),
        ({"space": {"workers": "many"}}, "space.workers: must be an integer (got 'many')"),
        ({"space": {"workers": 3_000_000_000}}, "space.workers: must be less than 2147483648 (got 3000000000)"),
        ({"space": {"properties": {"io": 2}}}, "space.properties.io: property io is not known to TorchServe"),
        ({"space": {"environment": {"FOO": None}}}, "space.environment.FOO: must be a number, a string"),
        ({"space": {"mkl_threads": 1, "environment": {"OMP_NUM_THREADS": 2}}}, "space: environment variable OMP_NUM_THREADS"),
        ({"model": {"archive": "echo.mar"}}, "model.requests: is missing"),
        ({"model": {"archive": "~nosuchuser/a.mar", "requests": "requests.jsonl"}}, "model.archive: ~nosuchuser/a.mar is in the home"),
        ({"load": {"arrivals": "bursty"}}, "load.arrivals: must be 'constant' or 'poisson' (got 'bursty')"),
        ({"load": {"timeout_s": "10"}}, "load.timeout_s: must be a number (got '10')"),
        ({"goal": {"window_s": 9, "window_limit_s": 5}}, "goal.window_limit_s: must be at least window_s, which is 9.0 (got 5.0)"),
        ({"goal": {"window_s": 15, "search_limit_s": 10}}, "goal.search_limit_s: must be at least window_s, which is 15.0 (got 10.0)"),
        ({"goal": {"window_s": 30}}, "goal.window_limit_s: must be at least window_s, which is 30.0 (got 20.0)"),
        ({"goal": {"warmup_limit_s": float("inf")}}, "goal.warmup_limit_s: must be a finite number"),
        ({"search": {"trials": 0}}, "search.trials: must be at least 1 (got 0)"),
        ({"serving": {"ports": {"metrics": 9, "inference": 9}}}, "serving.ports.metrics: port 9 is also the port of inference"),
        ({"output": {"folder": "~nosuchuser/runs"}}, "output.folder: ~nosuchuser/runs is in the home of a user who"),
        ({"name": "a/b"}, "name: must consist of letters"),
    ],
)  # fmt: skip
def test_load_spec_reports_a_mistake_with_its_path(
    folder: Path, sections: dict, sentence: str
) -> None:
    with pytest.raises(SpecError, match=re.escape(sentence)) as caught:
        load_spec(write_spec(folder, **sections))
    assert len(caught.value.problems) == 1, caught.value.problems


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"extra": 1}, "extra: unknown key; known keys are format_version, name, model, "),
        ({"goal": {"range": 3}}, "goal.range: unknown key; known keys are objective, for_rps, "),
        ({"serving": {"ports": {"http": 3}}}, "serving.ports.http: unknown key; known keys are inference, "),
        ({"confirm": {"round": 3}}, "confirm.round: unknown key; known keys are rounds, finalists, time_limit_s"),
        ({"space": {"wrokers": 2}}, "space.wrokers: unknown key; known keys are workers, "),
        ({"space": {"workers": {"low": 1, "high": 2, "step": 1}}}, "space.workers.step: unknown key; known keys are low, high, log"),
        ({"sweep": {"loads": [{"kind": "burst", "requests": 1, "users": 1}]}}, "users: unknown key; known keys are kind, requests"),
        ({"sweep": {"loads": [{"kind": "sustained"}], "points": [{"worker": 1}]}}, "sweep.points.0.worker: unknown key; known keys are workers, "),
    ],
)  # fmt: skip
def test_load_spec_names_the_known_keys_of_the_section(
    folder: Path, sections: dict, sentence: str
) -> None:
    with pytest.raises(SpecError, match=sentence) as caught:
        load_spec(write_spec(folder, **sections))
    assert len(caught.value.problems) == 1, caught.value.problems


def test_load_spec_reports_all_mistakes_at_once(folder: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(
            write_spec(
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


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("a: [", "is not valid YAML in line 1", id="unclosed list"),
        pytest.param("- 1", "is not a specification", id="not a mapping"),
        pytest.param("name: 2024-13-45", "is not valid YAML", id="invalid date"),
        pytest.param("name: !!bool x", "is not valid YAML", id="invalid tag"),
        pytest.param(None, "cannot be read", id="missing file"),
    ],
)
def test_load_spec_refuses_a_file_that_is_no_specification(
    tmp_path: Path, text: str | None, sentence: str
) -> None:
    path = tmp_path / "bad.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SpecError, match=sentence):
        load_spec(path)


def test_starter_is_valid_with_and_without_its_comments(folder: Path) -> None:
    text = STARTER_PATH.read_text()
    make_archive(folder, name="my-model")
    (folder / "mine.yaml").write_text(text)
    assert load_spec(folder / "mine.yaml").name == "my-model"
    uncommented = yaml.safe_load(re.sub(r'(?m)^# (?=(  )*(- )?["\w-]+:)', "", text))
    for name in ("python", "java", "baseline"):
        del uncommented["serving"][name]
    assert {"model", "space", "load", "goal", "search", "serving", "confirm"} <= set(uncommented)
    spec = load_spec(write_spec(folder, **uncommented))
    assert spec.build_space(2).common.job_queue_size == 1000


def test_load_spec_refuses_a_path_with_a_nul_character(folder: Path) -> None:
    with pytest.raises(SpecError, match=r"serving\.baseline\.properties: must not contain a NUL"):
        load_spec(write_spec(folder, serving={"baseline": "a\0b"}))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("load:\n  mix: {echo: 3, echo: 1}\n", "line 2, column 18: the key echo"),
        ("load: {}\ngoal: {}\nload: {}\n", "line 3, column 1: the key load"),
        ("load:\n  background:\n  - model: a\n    model: b\n", "line 4, column 5: the key model"),
    ],
)
def test_load_spec_refuses_a_key_that_is_given_twice(tmp_path: Path, text: str, place: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=f"is not valid YAML in {place} is given twice"):
        load_spec(path)


def test_load_spec_reads_characters_that_json_escapes(folder: Path) -> None:
    path = write_spec(folder)
    path.write_text(f'{path.read_text()}space: {{environment: {{NAME: "\\ud83d\\ude00"}}}}\n')
    assert load_spec(path).space.environment == {"NAME": "\U0001f600"}
    path.write_text(path.read_text().replace("\\ude00", ""))
    with pytest.raises(SpecError, match=r"not valid YAML in .*half of a surrogate pair"):
        load_spec(path)
