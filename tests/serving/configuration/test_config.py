from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serving.archive import Archive
from serving.configuration.config import ServerConfig
from serving.errors import ConfigError

ARCHIVE = Archive(Path("/models/codegen.mar"), "codegen", "1.0")
SITE_PROPERTIES = {"inference_address": "http://127.0.0.1:8080"}


def test_config_without_settings_writes_archive_only() -> None:
    written = ServerConfig().properties_text(ARCHIVE, {})
    assert written == "load_models=codegen.mar\n"
    assert ServerConfig().environment_text() == ""


def test_environment_variables_has_both_thread_variables() -> None:
    assert ServerConfig(mkl_threads=2).environment_variables() == {
        "MKL_NUM_THREADS": "2",
        "OMP_NUM_THREADS": "2",
    }


def test_properties_text_does_not_escape_vmargs() -> None:
    # The torchserve wrapper splits lines at the first '=' and unescapes nothing.
    written = ServerConfig(jvm={"-Dname": "a:b", "-Xmx": "2g"}).properties_text(ARCHIVE, {})
    assert "vmargs=-Dname=a:b -Xmx2g\n" in written


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"batch_size": 0}, r"batch_size must be an integer of at least 1 \(got 0\)"),
        ({"max_batch_delay_ms": 0}, "TorchServe reads 0 as 100"),
        ({"workers": 2**31}, r"workers must be at most 2147483647 \(got 2147483648\)"),
        ({"workers": True}, "workers must be an integer"),
        ({"properties": {"async_loging": "true"}}, "async_loging is not known"),
        ({"properties": {"io_ratio": "many"}}, "io_ratio must be an integer"),
        ({"properties": {"ipex_enable": "yes"}}, "ipex_enable must be true or false"),
        ({"properties": {"keystore": "x\n"}}, "line breaks"),
        ({"properties": {"job_queue_size": "5"}}, "use the setting job_queue_size"),
        ({"properties": {"inference_address": "x"}}, "inference_address is set by servetune"),
        ({"properties": {"models": "{}"}}, "is written from the other settings"),
        ({"environment": {"A B": "1"}}, "A B needs a valid shell name"),
        ({"environment": {"OMP_NUM_THREADS": "1"}, "mkl_threads": 1}, "set the same thing"),
        ({"environment": {"TS_CONFIG_FILE": "x"}}, "TS_CONFIG_FILE is set by servetune"),
        (
            {"environment": {"TS_MANAGEMENT_ADDRESS": "http://0.0.0.0:1"}},
            "TS_MANAGEMENT_ADDRESS is set by servetune",
        ),
        ({"jvm": {"Xmx": "2g"}}, "must start with '-'"),
        ({"model_properties": {"batchDelay": 3}}, "batchDelay is not known"),
    ],
)
def test_config_refuses_invalid_setting(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ServerConfig(**settings)


def test_digest_ignores_order_of_settings() -> None:
    config = ServerConfig(environment={"A": "1", "B": "2"})
    reordered = ServerConfig(environment={"B": "2", "A": "1"})
    assert config.digest == reordered.digest != ServerConfig().digest


ZOO = Archive(Path("/models/zoo.mar"), "zoo", "2.0")


def test_properties_text_has_an_entry_for_each_model() -> None:
    config = ServerConfig(workers=1, models={"zoo": {"workers": 3, "startupTimeout": 9}})
    alias = ZOO.registered_as("animals")
    written = config.properties_text(ARCHIVE, {}, [ZOO, alias])
    assert "load_models=codegen.mar,zoo.mar,animals=zoo.mar\n" in written
    assert (
        '"zoo":{"2.0":{"defaultVersion":true,"marName":"zoo.mar","minWorkers":3,"maxWorkers":3,'
        '"startupTimeout":9}}'
    ) in written
    assert "animals" not in written.partition("models={")[2]


def test_of_model_has_settings_of_that_model_alone() -> None:
    config = ServerConfig(workers=1, models={"zoo": {"workers": 3, "runtimeType": "python"}})
    of_zoo = ServerConfig(workers=3, model_properties={"runtimeType": "python"})
    assert config.of_model("zoo") == of_zoo
    assert config.of_model("ape") == ServerConfig()


def test_to_dict_of_several_models_is_read_back() -> None:
    config = ServerConfig(workers=1, models={"zoo": {"workers": 3}, "ape": {}})
    assert config.to_dict() == {"workers": 1, "models": {"zoo": {"workers": 3}}}
    assert ServerConfig(**config.to_dict()).digest == config.digest


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"batch_size": 0}, r"models.zoo.batch_size must be an integer of at least 1 \(got 0\)"),
        ({"batches": 2}, "models.zoo.batches is not a setting of a model; known are workers"),
        ({"job_queue_size": 2}, "models.zoo.job_queue_size is not a setting of a model"),
    ],
)
def test_config_refuses_invalid_setting_of_another_model(
    settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ServerConfig(models={"zoo": settings})
