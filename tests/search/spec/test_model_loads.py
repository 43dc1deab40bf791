"""Loads of several models in a specification, and the sentence for each mistake."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from loadgen.payloads import mix
from loadgen.schedule import Share
from search.cli.main import run_command
from search.errors import SpecError
from search.spec.loading import load_spec
from search.spec.schema import StudySpec
from search.study.run_folder import Run
from servetune.errors import ExitStatus
from tests.archives import make_archive
from tests.specifications import write_spec

MIX = {"mix": {"echo": 3, "zoo": 1}, "requests": {"zoo": "zoo.jsonl"}}
BACKGROUND = {"model": "zoo", "requests": "zoo.jsonl", "rate_rps": 2}


@pytest.fixture
def two(folder: Path) -> Path:
    """A folder with two models and their requests."""
    make_archive(folder, name="zoo")
    (folder / "zoo.jsonl").write_text('{"body": "z1"}\n{"body": "z2", "path": "/ping"}\n')
    return folder


def write(folder: Path, **sections: Any) -> Path:
    return write_spec(folder, **{"serving": {"models": {"zoo": "zoo.mar"}}, **sections})


def spec_of(folder: Path, **sections: Any) -> StudySpec:
    return load_spec(write(folder, **sections))


def test_payloads_are_mixed_in_their_shares_with_a_path_for_each_model(two: Path) -> None:
    payloads = spec_of(two, load=MIX).payloads()
    drawn = Counter((p.path, p.body) for p in islice(mix(payloads, Share()), 800))
    own = (None, b'{"a": 1}')
    assert abs(drawn[own] - 600) <= 1
    assert abs(drawn["/predictions/zoo", b"z1"] - 100) <= 1
    assert abs(drawn["/ping", b"z2"] - 100) <= 1


def test_background_loads_have_their_own_requests_and_seeds(two: Path) -> None:
    load = {"background": [{**BACKGROUND, "arrivals": "poisson"}], "seed": 4}
    (background,) = spec_of(two, load=load).background_loads()
    assert (background.model, background.rate_rps, background.is_poisson) == ("zoo", 2, True)
    assert background.seed == 5 and background.payloads[0].path == "/predictions/zoo"


def test_study_space_has_dimensions_of_each_model(two: Path) -> None:
    models = {"echo": {"batch_size": [1, 8]}, "zoo": {"workers": 2, "max_batch_delay_ms": None}}
    spec = spec_of(two, load=MIX, space={"models": models, "netty_threads": 2})
    space = spec.study_space(2)
    names = {dimension.name for dimension in space.dimensions}
    assert {"workers", "batch_size", "models.zoo.batch_size"} <= names
    assert not {"models.zoo.workers", "models.echo.batch_size", "netty_threads"} & names
    assert space.default_config.to_dict() == {}
    point = space.recommended_points()[0]
    assert point["models.zoo.batch_size"] == 32 and point["batch_size"] == 8
    assert space.config(point).to_dict()["models"] == {"zoo": {"workers": 2, "batch_size": 32}}
    assert space.values(space.config(point)) == point


def test_run_has_the_settings_of_the_tuned_model_beside_the_others(two: Path) -> None:
    spec = spec_of(two, load=MIX, space={"models": {"echo": {"workers": 2}, "zoo": {}}})
    run = Run.create(
        spec.model_copy(update={"output": spec.output.model_copy(update={"folder": two})}),
        {"host": {"cores": 2}},
    )
    again = run.spec()
    assert again.study_space(2) == spec.study_space(2)
    space = run.specified()["space"]
    assert space["workers"] == 2 and list(space["models"]) == ["zoo"]
    assert space["models"]["zoo"]["workers"] == {"low": 1, "high": 4, "log": False, "widen_to": 128}
    # On another host, the ranges of this run stay.
    assert again.study_space(64).dimensions[-3:] == spec.study_space(2).dimensions[-3:]


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"load": {"mix": {"echo": 1}}}, "load.mix: has only echo; name at least two models"),
        ({"load": {"mix": {"echo": 1, "zoo": 0}}}, "load.mix.zoo: must be greater than 0.0 (got 0)"),
        ({"load": {"mix": {"echo": 1, "zoo": -2}}}, "load.mix.zoo: must be greater than 0.0 (got -2)"),
        ({"load": {"mix": {"echo": 1, "zoo": "much"}}}, "load.mix.zoo: must be a number (got 'much')"),
        ({"load": {"requests": {"zoo": "zoo.jsonl"}}}, "load.requests.zoo: load.mix has no model zoo"),
        ({"load": {"background": [{**BACKGROUND, "rate_rps": 0}]}}, "load.background.0.rate_rps: must be greater than 0.0 (got 0)"),
        ({"load": {"background": [{"model": "zoo", "rate_rps": 1}]}}, "load.background.0.requests: is missing"),
        ({"load": {"background": [{**BACKGROUND, "rate": 1}]}}, "load.background.0.rate: unknown key; known keys are model, requests, rate_rps"),
        ({"load": {"background": [{**BACKGROUND, "arrivals": "burst"}]}}, "load.background.0.arrivals: must be 'constant' or 'poisson'"),
        ({"load": {"background": [BACKGROUND, BACKGROUND]}}, "load.background.1.model: zoo is named twice"),
        ({"load": {**MIX, "background": [BACKGROUND]}}, "load.background.0.model: zoo is in load.mix already"),
        ({"space": {"models": {"zoo": {"batch": 2}}}}, "space.models.zoo.batch: unknown key"),
        ({"space": {"models": {"zoo": {"workers": 0}}}}, "space.models.zoo.workers: must be at least 1 (got 0)"),
        ({"sweep": {"loads": [{"kind": "burst", "requests": 2}]}, "space": {"workers": [1, 2]}, "load": MIX}, "load.mix: a sweep measures one model"),
    ],
)  # fmt: skip
def test_load_spec_reports_a_mistake_in_a_load(two: Path, sections: dict, sentence: str) -> None:
    with pytest.raises(SpecError, match=re.escape(sentence)) as caught:
        load_spec(write(two, **sections))
    assert len(caught.value.problems) == 1, caught.value.problems


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"load": {**MIX, "mix": {"echo": 1, "ape": 1, "zoo": 1}}}, "load.mix.ape: ape is not a model of the server, which has echo, zoo"),
        ({"load": {"mix": {"zoo": 1, "ape": 1}, "requests": {"zoo": "zoo.jsonl"}}, "serving": {"models": {"zoo": "zoo.mar", "ape": "ape.mar"}}}, "load.mix: lacks echo, the model of model.archive"),
        ({"load": {"mix": {"echo": 1, "zoo": 1}}}, "load.mix.zoo: zoo has no requests; give their file as load.requests.zoo"),
        ({"load": {**MIX, "requests": {"zoo": "zoo.jsonl", "echo": "zoo.jsonl"}}}, "load.requests.echo: model.requests names the requests of echo already"),
        ({"load": {"background": [{**BACKGROUND, "model": "echo"}]}}, "load.background.0.model: echo is the model that is tuned"),
        ({"load": {"background": [{**BACKGROUND, "model": "ape"}]}}, "load.background.0.model: ape is not a model of the server"),
        ({"space": {"models": {"zoo": {}}}}, "space.models.zoo: zoo is tuned, but has no share of load.mix"),
        ({"space": {"models": {"ape": {}}}}, "space.models.ape: ape is not a model of the server"),
        ({"load": MIX, "space": {"workers": 1, "models": {"echo": {"workers": 2}}}}, "space.models.echo.workers: sets the same as space.workers; remove one"),
    ],
)  # fmt: skip
def test_study_space_refuses_models_that_do_not_fit(
    two: Path, sections: dict, sentence: str
) -> None:
    make_archive(two, name="ape")
    with pytest.raises(SpecError, match=re.escape(sentence)):
        load_spec(write(two, **sections)).study_space(2)


@pytest.mark.parametrize(
    ("load", "sentence"),
    [
        ({**MIX, "requests": {"zoo": "no.jsonl"}}, "load.requests.zoo: "),
        ({"background": [{**BACKGROUND, "requests": "echo.mar"}]}, "load.background.0.requests: "),
        ({"mix": {"echo": 1, "ape": 1}}, "load.mix.ape: "),
    ],
)
def test_tune_refuses_load_before_the_start(
    two: Path, load: dict, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["tune", str(write(two, load=load))]) == ExitStatus.BAD_INPUT
    printed = capsys.readouterr()
    assert sentence in " ".join((printed.out + printed.err).split())
    assert not (two / "runs").exists()
