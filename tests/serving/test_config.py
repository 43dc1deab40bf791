from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serving.archive import Archive
from serving.config import ServerConfig
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
        ({"workers": True}, "workers must be an integer"),
        ({"properties": {"async_loging": "true"}}, "async_loging is not known"),
        ({"properties": {"io_ratio": "many"}}, "io_ratio must be an integer"),
        ({"properties": {"ipex_enable": "yes"}}, "ipex_enable must be true or false"),
        ({"properties": {"keystore": "x "}}, "trailing spaces"),
        ({"properties": {"job_queue_size": "5"}}, "use the setting job_queue_size"),
        ({"properties": {"inference_address": "x"}}, "inference_address is set by servetune"),
        ({"properties": {"models": "{}"}}, "is written from the other settings"),
        ({"environment": {"A B": "1"}}, "A B='1' needs a valid shell name"),
        ({"environment": {"OMP_NUM_THREADS": "1"}, "mkl_threads": 1}, "set the same thing"),
        ({"environment": {"TS_CONFIG_FILE": "x"}}, "TS_CONFIG_FILE is set by servetune"),
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
