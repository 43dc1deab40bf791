"""The examples of docs/several-models.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from search.spec.loading import load_spec
from search.spec.preflight import preflight
from search.spec.schema import StudySpec
from tests.archives import make_archive

PAGE = Path(__file__).parents[3] / "docs" / "several-models.md"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE.read_text(), re.M | re.S)


@pytest.fixture
def documented(tmp_path: Path) -> list[StudySpec]:
    """The specifications on the page, whose files are in one folder."""
    for name in ("cat", "dog", "owl"):
        make_archive(tmp_path, name=name)
        (tmp_path / f"{name}.jsonl").write_text('{"body": "x"}\n')
    (properties,) = blocks("properties")
    (tmp_path / "config.properties").write_text(properties)
    specs = []
    for text in blocks("yaml"):
        path = tmp_path / "study.yaml"
        path.write_text(text)
        specs.append(load_spec(path))
    return specs


def test_documented_specifications_can_be_run(documented: list[StudySpec]) -> None:
    assert len(documented) == 3
    for spec in documented:
        preflight(spec)
        in_use = spec.in_use()
        assert [archive.name for archive in in_use.beside] == ["dog"]
        assert in_use.other_models == ("owl",)
        assert in_use.config.models == {"dog": {"workers": 1, "batch_size": 2}}


def test_documented_background_and_mix_have_their_loads(documented: list[StudySpec]) -> None:
    _, background, two = documented
    (load,) = background.background_loads()
    assert (load.model, load.rate_rps) == ("dog", 8)
    weights = {payload.path: payload.weight for payload in two.payloads()}
    assert weights == {None: 3, "/predictions/dog": 1}
    dimensions = {dimension.name: dimension for dimension in two.study_space(4).dimensions}
    assert dimensions["batch_size"].high == 64 and dimensions["workers"].high == 8
    assert dimensions["models.dog.workers"].high == 2
    assert dimensions["models.dog.batch_size"].high == 128
    assert "models.dog.max_batch_delay_ms" not in dimensions
