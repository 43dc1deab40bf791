"""Tests of reading a deployment's key pair, and of what a trial gets of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.archive import Archive
from serving.configuration.deployment import Deployment
from serving.configuration.environment import REDACTED
from serving.configuration.key_pair import KeyPair
from serving.errors import ConfigError

ARCHIVE = Archive(Path("/models/pets.mar"), "pets", "1.0")
HTTPS = "inference_address=https://0.0.0.0:8443\n"
FILES = HTTPS + "private_key_file=tls/server.key\ncertificate_file=tls/server.pem\n"
KEYSTORE = HTTPS + "keystore=/k/store.p12\nkeystore_type=PKCS12\nkeystore_pass=p$ss\\\\w\n"


def read(text: str, **more: dict[str, str]) -> Deployment:
    environment, in_lines = more.get("environment", {}), more.get("in_lines", {})
    return Deployment.read(text, environment, ARCHIVE, line_secrets=in_lines)


def test_deployment_reads_the_files_of_an_https_address() -> None:
    found = read(FILES)
    assert found.key_pair == KeyPair(
        {"private_key_file": "tls/server.key", "certificate_file": "tls/server.pem"}
    )
    assert set(found.unused) == {"inference_address"}
    assert "each trial serves over https with tls/server.pem" in found.summary(None)[-1]


@pytest.mark.parametrize("address", ["", "inference_address=http://0.0.0.0:8080\n"])
def test_deployment_without_https_has_no_key_pair(address: str) -> None:
    found = read(FILES.replace(HTTPS, address))
    assert found.key_pair is None
    assert found.unused["certificate_file"] == "tls/server.pem"


def test_deployment_prefers_the_keystore_as_torchserve_does() -> None:
    found = read(KEYSTORE + FILES)
    assert found.key_pair is not None
    assert dict(found.key_pair.lines) == {"keystore": "/k/store.p12", "keystore_type": "PKCS12"}
    assert "private_key_file" in found.unused


@pytest.mark.parametrize("rest", ["", "certificate_file=a.pem\n", "HTTPS"])
def test_deployment_without_a_whole_pair_lets_torchserve_make_a_certificate(rest: str) -> None:
    text = "inference_address=HTTPS://0.0.0.0:8443\n" if rest == "HTTPS" else HTTPS + rest
    found = read(text)
    assert found.key_pair == KeyPair()
    assert "TorchServe makes a certificate" in found.summary(None)[-1]


def test_key_pair_gives_the_password_as_a_variable_only() -> None:
    found = read(KEYSTORE)
    assert found.key_pair is not None
    assert "ss\\w" not in repr(found) + " ".join(found.summary(None))
    assert found.key_pair.properties()["keystore_pass"] == "$$SERVETUNE_KEYSTORE_PASS$$"
    # Java's Matcher.appendReplacement reads the value, and takes $ and \ as its own.
    assert found.key_pair.variables() == {"SERVETUNE_KEYSTORE_PASS": "p\\$ss\\\\w"}


def test_key_pair_keeps_a_variable_of_the_user() -> None:
    text = HTTPS + "keystore=/k/store.p12\nkeystore_pass=$$STORE_PASSWORD$$\n"
    found = read(text, environment={"STORE_PASSWORD": "secret"})
    assert found.key_pair is not None
    assert found.key_pair.properties()["keystore_pass"] == "$$STORE_PASSWORD$$"
    assert found.key_pair.variables() == {}
    assert found.secrets == {"STORE_PASSWORD": "secret"}


def test_key_pair_of_a_copied_run_takes_the_password_from_the_file_in_use() -> None:
    text = HTTPS + f"keystore=/k/store.p12\nkeystore_pass={REDACTED}\n"
    found = read(text, in_lines={"SERVETUNE_KEYSTORE_PASS": "known"})
    assert found.key_pair is not None and not found.secrets
    assert found.key_pair.variables() == {"SERVETUNE_KEYSTORE_PASS": "known"}
    unknown = read(text).key_pair
    assert unknown is not None
    with pytest.raises(ConfigError, match="the value of keystore_pass is not known"):
        unknown.variables()


def test_key_pair_resolves_relative_paths_in_the_working_folder_first(tmp_path: Path) -> None:
    working, beside = tmp_path / "working", tmp_path / "beside"
    for folder, names in ((working, ["server.key"]), (beside, ["server.key", "server.pem"])):
        (folder / "tls").mkdir(parents=True)
        for name in names:
            (folder / "tls" / name).write_text("x")
    pair = read(FILES).key_pair
    assert pair is not None
    resolved = pair.resolved([working, beside])
    assert resolved.lines == {
        "private_key_file": str(working / "tls/server.key"),
        "certificate_file": str(beside / "tls/server.pem"),
    }
    with pytest.raises(ConfigError) as error:
        pair.resolved([tmp_path])
    assert "does not exist in" in str(error.value) and "absolute path" in str(error.value)
    with pytest.raises(ConfigError, match=r"^keystore=/k/store\.p12 does not exist$"):
        KeyPair({"keystore": "/k/store.p12"}).resolved([tmp_path])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"-----BEGIN CERTIFICATE-----\nAA==\n", "-----BEGIN CERTIFICATE-----\nAA==\n"),
        (b"subject: x\xe9\n-----BEGIN CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\n"),
        (b"\x30\x82\x01", ""),
    ],
)
def test_key_pair_certificate_is_the_pem_text(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    path = tmp_path / "server.pem"
    path.write_bytes(content)
    assert KeyPair({"certificate_file": str(path)}).certificate() == expected
    assert KeyPair({"keystore": str(path)}).certificate() == ""
