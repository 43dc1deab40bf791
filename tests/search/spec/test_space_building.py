"""Which settings of a space vary, and which entries are refused."""

import pytest
from pydantic import ValidationError

from search.spec.dimension import Dimension
from search.spec.settings import SpaceSection
from search.spec.space_building import build_space
from serving.configuration.config import ServerConfig
from serving.errors import ConfigError


def test_build_space_varies_six_settings_by_default() -> None:
    space = build_space({"job_queue_size": 1000}, cores=2)
    assert [d.name for d in space.dimensions] == [
        "workers",
        "batch_size",
        "max_batch_delay_ms",
        "netty_threads",
        "netty_client_threads",
        "mkl_threads",
    ]
    assert space.common == ServerConfig(job_queue_size=1000)


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        pytest.param({"properties.io_rati": 50}, "io_rati is not known", id="unknown property"),
        pytest.param(
            {"properties.ipex_enable": Dimension("", choices=("yes", "no"))},
            "must be true or false",
            id="choice of the wrong type",
        ),
        pytest.param(
            {"environment.OMP_NUM_THREADS": 2},
            "set the same thing",
            id="environment variable in conflict with mkl_threads",
        ),
    ],
)
def test_build_space_refuses_a_setting_without_effect(entries: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build_space(entries, cores=2)


@pytest.mark.parametrize("envelope", ["kserve", "kservev2"])
def test_build_space_has_no_batches_with_an_envelope_of_kserve(envelope: str) -> None:
    entries = {"properties.service_envelope": envelope}
    space = build_space(entries, cores=2)
    assert space.common.batch_size == 1
    assert "batch_size" not in [dimension.name for dimension in space.dimensions]
    for given in (Dimension("", 1, 8), Dimension("", choices=(1, 8)), 8):
        for name in ("batch_size", "models.zoo.batch_size"):
            message = rf"^{name} must be 1 .got 8.: the envelope {envelope} "
            with pytest.raises(ConfigError, match=message):
                build_space({**entries, name: given}, cores=2)


def test_build_space_has_batches_with_another_envelope() -> None:
    space = build_space({"properties.service_envelope": "json"}, cores=2)
    assert "batch_size" in [dimension.name for dimension in space.dimensions]


def test_space_section_has_no_batches_of_other_models_with_an_envelope_of_kserve() -> None:
    section = SpaceSection.model_validate(
        {"properties": {"service_envelope": "kserve"}, "models": {"zoo": {"workers": 2}}}
    )
    assert section.build(cores=2).common.models["zoo"] == {"workers": 2, "batch_size": 1}
    with pytest.raises(ValidationError, match=r"models.zoo.batch_size must be 1"):
        SpaceSection.model_validate(
            {"properties": {"service_envelope": "kserve"}, "models": {"zoo": {"batch_size": 4}}}
        )
