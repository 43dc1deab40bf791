"""The archives of the models that a server has beside the tuned one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from search.errors import SpecError
from search.spec.loading import load_spec
from search.spec.schema import StudySpec
from tests.archives import as_folder, make_archive
from tests.specifications import write_spec

ENTRY = {
    **{"defaultVersion": True, "minWorkers": 2, "maxWorkers": 2, "batchSize": 4},
    "maxBatchDelay": 30,
}


def spec_of(folder: Path, properties: str | None = None, **sections: Any) -> StudySpec:
    serving = sections.pop("serving", {})
    if properties is not None:
        (folder / "config.properties").write_text(properties)
        serving = {"baseline": "config.properties", **serving}
    return load_spec(write_spec(folder, serving=serving, **sections))


def models_line(**entries: dict[str, Any]) -> str:
    return f"models={json.dumps({name: {'1.0': entry} for name, entry in entries.items()})}\n"


def test_in_use_has_models_of_the_model_store_with_their_settings(folder: Path) -> None:
    make_archive(folder / "store", name="zoo")
    spec = spec_of(
        folder, f"model_store=store\nload_models=echo.mar,zoo.mar\n{models_line(zoo=ENTRY)}"
    )
    in_use = spec.in_use()
    assert [archive.path for archive in in_use.beside] == [folder / "store" / "zoo.mar"]
    zoo = {"workers": 2, "batch_size": 4, "max_batch_delay_ms": 30}
    assert in_use.config.models == {"zoo": zoo} and in_use.other_models == ()
    space = spec.study_space(2)
    assert space.default_config.models == {"zoo": zoo}, "the others keep their settings"
    assert space.config(space.recommended_points()[0]).models == {"zoo": zoo}
    assert "the model zoo 1.0 is served beside it (workers=2" in "\n".join(spec.baseline_notes())


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ("load_models=echo.mar,parrot=zoo.mar\n", {"parrot"}),
        ("load_models=echo.mar,zoo.mar\n", {"zoo"}),
        ("load_models=all\nmodel_store=.\n", {"zoo", "cage"}),
        (models_line(echo=ENTRY, zoo=ENTRY), {"zoo"}),
        ('model_snapshot={"modelCount":2,"models":{"z":{"1.0":' + json.dumps({**ENTRY, "marName": "zoo.mar"}) + '},"echo":{"1.0":' + json.dumps({**ENTRY, "marName": "echo.mar"}) + "}}}\n", {"z"}),
    ],
    ids=["alias", "without an alias", "all", "entries", "snapshot"],
)  # fmt: skip
def test_in_use_finds_models_beside_the_archive(
    folder: Path, properties: str, expected: set[str]
) -> None:
    make_archive(folder, name="zoo")
    as_folder(make_archive(folder / "other", name="cage")).rename(folder / "cage")
    in_use = spec_of(folder, properties).in_use()
    assert {archive.name for archive in in_use.beside} == expected


def test_in_use_takes_defaults_of_the_server_and_settings_of_the_archive(folder: Path) -> None:
    make_archive(folder, name="zoo", model_config__yaml="batchSize: 7\n")
    make_archive(folder, name="cage")
    spec = spec_of(
        folder,
        "default_workers_per_model=3\ndefault_response_timeout=9\n"
        "load_models=echo.mar,zoo.mar,cage.mar\n" + models_line(zoo=ENTRY),
    )
    assert spec.in_use().config.models == {
        "zoo": {"workers": 2, "batch_size": 7, "max_batch_delay_ms": 30},
        "cage": {"workers": 3, "response_timeout_s": 9},
    }


def test_in_use_serves_given_models_and_leaves_out_null(folder: Path) -> None:
    path = make_archive(folder / "elsewhere", name="zoo")
    serving: dict[str, Any] = {"models": {"animals": "elsewhere/zoo.mar"}}
    (archive,) = spec_of(folder, serving=serving).in_use().beside
    assert (archive.name, archive.path, archive.load_models) == (
        "animals",
        path,
        "animals=zoo.mar",
    )
    spec = spec_of(folder, "load_models=echo.mar,zoo.mar\n", serving={"models": {"zoo": None}})
    assert spec.in_use().beside == () and spec.in_use().other_models == ("zoo",)
    assert "other models, left out: zoo" in spec.baseline_notes()


@pytest.mark.parametrize(
    ("properties", "models", "sentence"),
    [
        ("load_models=echo.mar,gone.mar\n", {}, "serving.models.gone: the baseline serves gone from gone.mar, which is not in {folder}; give its path, or leave the model out with `serving: {{models: {{gone: null}}}}`"),
        ("load_models=echo.mar,gone.mar\nmodel_store=/no/store\n", {}, "serving.models.gone: the baseline serves gone"),
        ("load_models=echo.mar,bad.mar\n", {}, "serving.models.bad: {folder}/bad.mar is not a model archive"),
        ("", {"x": "no.mar"}, "serving.models.x: model archive {folder}/no.mar does not exist"),
        ("", {"x": None}, "serving.models.x: null leaves out a model of the baseline, which has none"),
        ("", {"echo": "zoo.mar"}, "serving.models.echo: echo is the model of model.archive"),
        ("", {"x": "other/echo.mar"}, "serving.models.x: {folder}/other/echo.mar has the file name of {folder}/echo.mar"),
    ],
)  # fmt: skip
def test_in_use_refuses_model_that_cannot_be_served(
    folder: Path, properties: str, models: dict, sentence: str
) -> None:
    make_archive(folder, name="zoo")
    make_archive(folder / "other", name="echo")
    (folder / "bad.mar").write_text("no archive")
    expected = re.escape(sentence.format(folder=folder))
    with pytest.raises(SpecError, match=expected) as caught:
        spec_of(folder, properties, serving={"models": models}).in_use()
    assert len(caught.value.problems) == 1, caught.value.problems


def test_in_use_leaves_out_other_versions_of_the_tuned_model(folder: Path) -> None:
    versions = {"echo": {"1.0": ENTRY, "2.0": {**ENTRY, "marName": "echo2.mar"}}}
    in_use = spec_of(folder, f"models={json.dumps(versions)}\n").in_use()
    assert in_use.beside == () and in_use.other_models == ("echo 2.0",)


@pytest.mark.parametrize("model_store", ["", "model_store=/no/store\n"])
def test_in_use_notes_models_of_an_unknown_store(folder: Path, model_store: str) -> None:
    make_archive(folder, name="zoo")
    in_use = spec_of(folder, f"load_models=all\n{model_store}").in_use()
    assert in_use.beside == () and "that have no entry are not known here" in in_use.notes[-1]
