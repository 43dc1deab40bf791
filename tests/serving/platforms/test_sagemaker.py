"""Reading requests to SageMaker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serving.archive import Archive
from serving.configuration.deployment import Deployment
from serving.configuration.environment import MULTI_MODEL, SERVING_MODULE, parse_environment
from serving.errors import ConfigError
from serving.platforms.reading import read_platform

VARIABLES = {"TS_JOB_QUEUE_SIZE": "7", "OMP_NUM_THREADS": "2"}
CONTAINER = {"Image": "pytorch-inference", "Environment": VARIABLES}


@pytest.mark.parametrize(
    "request_data",
    [
        {"PrimaryContainer": CONTAINER},
        {"Containers": [CONTAINER]},
        {"Containers": [{"Image": "x", "Environment": {"A": "b"}}, CONTAINER]},
    ],
    ids=["one", "list", "pipeline"],
)
@pytest.mark.parametrize("as_folder", [False, True], ids=["file", "folder"])
def test_read_platform_reads_requests_with_variables_of_torchserve(
    tmp_path: Path, request_data: dict[str, Any], as_folder: bool
) -> None:
    path = tmp_path / "create_model.json"
    path.write_text(json.dumps(request_data))
    platform = read_platform(tmp_path if as_folder else path)
    assert platform is not None and platform.platform == "sagemaker"
    assert platform.environment == {**SERVING_MODULE, **VARIABLES}
    assert platform.sources == (path,)
    archive = Archive(Path("pets.mar"), "pets", "1.0")
    config = Deployment.read(platform.properties, platform.environment, archive).config
    assert config.job_queue_size == 7
    assert config.properties["decode_input_request"] == "false"
    assert "-XX:-UseContainerSupport" in config.jvm_arguments()
    assert SERVING_MODULE.keys().isdisjoint(config.environment)


def test_read_platform_reads_a_request_without_variables(tmp_path: Path) -> None:
    (tmp_path / "create_model.json").write_text('{"PrimaryContainer": {"Image": "x"}}')
    platform = read_platform(tmp_path)
    assert platform is not None and platform.platform == "sagemaker"
    assert platform.environment == SERVING_MODULE


def test_read_platform_compares_the_variables_with_the_request(tmp_path: Path) -> None:
    (tmp_path / "create_model.json").write_text(json.dumps({"PrimaryContainer": CONTAINER}))
    (tmp_path / "environment.json").write_text(json.dumps(VARIABLES))
    platform = read_platform(tmp_path)
    assert platform is not None and platform.platform == "sagemaker"
    (tmp_path / "environment.json").write_text('{"OMP_NUM_THREADS": "4"}')
    with pytest.raises(ConfigError, match="differ in OMP_NUM_THREADS, TS_JOB_QUEUE_SIZE"):
        read_platform(tmp_path)


def test_read_platform_reads_a_config_properties_beside_other_variables(tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text('{"A": "b"}')
    (tmp_path / "config.properties").write_text("job_queue_size=7\n")
    platform = read_platform(tmp_path)
    assert platform is not None and platform.properties == "job_queue_size=7\n"


@pytest.mark.parametrize("text", ['{"Environment": {"A": "1"}}', '{"A": "1"}', "A=1"])
def test_parse_environment_adds_nothing_to_other_variables(text: str) -> None:
    assert parse_environment(text) == {"A": "1"}


@pytest.mark.parametrize(
    ("mode", "variables"),
    [("MultiModel", MULTI_MODEL), ("SingleModel", {}), (None, {})],
)
@pytest.mark.parametrize("has_environment", [False, True])
def test_read_platform_reads_the_mode_of_an_endpoint(
    tmp_path: Path, mode: str | None, variables: dict[str, str], has_environment: bool
) -> None:
    given = {"SAGEMAKER_TS_BATCH_SIZE": "8"}
    container = {"Mode": mode, "Environment": given}
    (tmp_path / "create_model.json").write_text(json.dumps({"PrimaryContainer": container}))
    if has_environment:
        (tmp_path / "environment.json").write_text(json.dumps(given))
    platform = read_platform(tmp_path)
    assert platform is not None
    assert platform.environment == {**SERVING_MODULE, **given, **variables}
    archive = Archive(Path("pets.mar"), "pets", "1.0")
    deployment = Deployment.read(platform.properties, platform.environment, archive)
    assert deployment.config.batch_size == (None if variables else 8)
    assert any("SAGEMAKER_MULTI_MODEL" in note for note in deployment.notes) is bool(variables)
