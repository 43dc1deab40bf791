"""Tests of the supported versions of TorchServe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from servetune.errors import FailureKind
from serving import installation as installation_module
from serving.archive import Archive
from serving.configuration.deployment import Deployment
from serving.configuration.ignored import find_ignored_settings
from serving.configuration.production import DEFAULT_PROPERTIES, DeploymentTarget
from serving.configuration.properties import KNOWN_KEYS
from serving.configuration.versions import NEWEST, SUPPORTED, find_version, supported_versions
from serving.errors import ConfigError, ServerError
from serving.installation import Installation, find_torchserve


@pytest.fixture
def old(installation: Installation) -> Installation:
    """An installation of 0.9.0."""
    return replace(installation, torchserve_version="0.9.0")


def test_newest_version_reads_every_known_key() -> None:
    assert NEWEST.number == "0.12.0" and not NEWEST.later_keys
    assert all(NEWEST.reads(key) for key in KNOWN_KEYS)
    assert not NEWEST.reads("no_such_key")


@pytest.mark.parametrize(
    ("number", "tokens", "model_api", "grpc_address", "env_allowed_urls"),
    [
        ("0.8.1", False, False, False, False),
        ("0.8.2", False, False, False, False),
        ("0.9.0", False, False, False, True),
        ("0.10.0", False, False, False, True),
        ("0.11.0", False, False, True, True),
        ("0.11.1", True, True, True, True),
        ("0.12.0", True, True, True, True),
    ],
)
def test_versions_differ_in_what_they_read(
    number: str, tokens: bool, model_api: bool, grpc_address: bool, env_allowed_urls: bool
) -> None:
    version = SUPPORTED[number]
    assert version.requires_tokens == version.reads("disable_token_authorization") == tokens
    assert version.reads("enable_model_api") == model_api
    assert version.reads("grpc_inference_address") == grpc_address
    assert version.reads("use_env_allowed_urls") == env_allowed_urls
    assert version.reads("metrics_mode") and version.reads("number_of_netty_threads")


@pytest.mark.parametrize("number", [None, "", "0.7.1", "0.8.0", "0.13.0", "0.12.0b20240930", "1"])
def test_find_version_knows_no_other_version(number: str | None) -> None:
    assert find_version(number) is None


def test_find_version_ignores_the_local_part() -> None:
    assert find_version("0.9.0+cu118") is SUPPORTED["0.9.0"]


@pytest.mark.parametrize("number", ["0.8.0", "0.7.1", "0.13.0", None])
def test_find_torchserve_refuses_other_versions_in_one_sentence(
    number: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        installation_module,
        "probe_interpreter",
        lambda python: {"home": "/x", "torchserve": number, "torch": "2", "python": "3.11"},
    )
    with pytest.raises(ServerError) as error:
        find_torchserve("/opt/python")
    assert error.value.kind is FailureKind.WRONG_TORCHSERVE
    message = error.value.message
    assert f"TorchServe {number or 'of an unknown version'}, but" in message
    assert supported_versions() in message and "\n" not in message


def test_find_ignored_settings_judges_by_the_version(old: Installation, archive: Archive) -> None:
    properties = {"enable_model_api": "true"}
    assert (
        find_ignored_settings(properties, replace(old, torchserve_version="0.12.0"), archive)
        is None
    )
    assert find_ignored_settings(properties, old, archive) == (
        "property enable_model_api is not known to TorchServe 0.9.0 and would be ignored "
        "(known since 0.11.1)"
    )


@pytest.mark.parametrize(("number", "works"), [("0.8.1", True), ("0.8.2", False), ("0.9.0", False)])
def test_find_ignored_settings_knows_when_async_logging_works(
    installation: Installation, archive: Archive, number: str, works: bool
) -> None:
    version = replace(installation, torchserve_version=number)
    reason = find_ignored_settings({"async_logging": "true"}, version, archive)
    assert (reason is None) == works
    assert works or f"no effect in TorchServe {number}" in (reason or "")


def test_deployment_summary_lists_what_its_version_ignores(old: Installation) -> None:
    archive = Archive(Path("/m/pets.mar"), "pets", "1.0")
    read = Deployment.read(
        "enable_model_api=true\nio_ratio=60\nasync_logging=false\n"
        'models={"pets":{"1.0":{"minWorkers":1,"startupTimeout":9}}}\n',
        {},
        archive,
    )
    (note,) = read.summary(old)
    assert "enable_model_api=true" in note and "startupTimeout=9" in note
    assert "io_ratio" not in note
    assert read.summary(replace(old, torchserve_version="0.12.0")) == []


def test_deployment_target_writes_only_what_its_version_reads(archive: Archive) -> None:
    config = Deployment.of_archive(archive).config
    old = DeploymentTarget(version=SUPPORTED["0.9.0"])
    lines = old.properties_text(config, archive)
    assert "grpc_inference_port=" in lines
    assert "grpc_inference_address" not in lines and "disable_token" not in lines
    new = DeploymentTarget().properties_text(config, archive)
    assert all(f"{key}=" in new for key in DEFAULT_PROPERTIES)
    assert "gRPC ports on all addresses" in old.notes(config, archive)[0]
    assert DeploymentTarget().notes(config, archive) == []
    with pytest.raises(ConfigError, match=r"TorchServe 0\.9\.0 and would be ignored"):
        DeploymentTarget(given={"enable_model_api": "true"}, version=SUPPORTED["0.9.0"])
