"""The key pair with which exported files are verified."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.export.common import ExportFormat
from search.export.exported_files import ExportedFiles
from search.export.exported_tls import exported_key_pair
from search.study.outcome import Outcome
from serving.configuration.key_pair import KeyPair
from serving.configuration.production import DeploymentTarget
from serving.errors import ConfigError
from tests.search.export.conftest import export_best

HTTPS = "inference_address=https://0.0.0.0:8443\n"
RELATIVE = f"{HTTPS}private_key_file=tls/server.key\ncertificate_file=tls/server.pem\n"
NAMES = ("server.key", "server.pem")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verify from a folder without a key pair."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


def exported(outcome: Outcome, tmp_path: Path, base: str | None) -> ExportedFiles:
    target = DeploymentTarget(base)
    folder = export_best(outcome, ExportFormat.PROPERTIES, target).folder
    (tmp_path / "scratch").mkdir()
    return ExportedFiles.read(folder, outcome.spec.model.archive.parent, tmp_path / "scratch")


def make_files(folder: Path) -> KeyPair:
    """Write a key pair to a folder; return it as a run has it."""
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_text(name)
    key, certificate = (str(folder / name) for name in NAMES)
    return KeyPair({"private_key_file": key, "certificate_file": certificate})


def test_exported_key_pair_is_found_where_the_run_found_it(
    outcome: Outcome, tmp_path: Path
) -> None:
    in_run = make_files(tmp_path / "deployment" / "tls")
    assert exported_key_pair(exported(outcome, tmp_path, RELATIVE), in_run) == in_run


def test_exported_key_pair_is_found_beside_the_files(outcome: Outcome, tmp_path: Path) -> None:
    files = exported(outcome, tmp_path, RELATIVE)
    beside = make_files(files.folder / "tls")
    assert exported_key_pair(files, None) == beside
    assert exported_key_pair(files, make_files(tmp_path / "deployment" / "tls")) == beside


def test_exported_key_pair_of_a_container_is_that_of_the_run(
    outcome: Outcome, tmp_path: Path
) -> None:
    base = RELATIVE.replace("=tls/", "=/only/in/the/container/")
    in_run = make_files(tmp_path / "deployment" / "tls")
    assert exported_key_pair(exported(outcome, tmp_path, base), in_run) == in_run


@pytest.mark.parametrize("in_run", [None, KeyPair({"keystore": "/store.p12"}), KeyPair()], ids=str)
def test_exported_key_pair_that_is_missing_is_refused(
    outcome: Outcome, tmp_path: Path, in_run: KeyPair | None
) -> None:
    files = exported(outcome, tmp_path, RELATIVE)
    with pytest.raises(
        ConfigError, match=r"private_key_file=tls/server\.key .*pass --against a run"
    ):
        exported_key_pair(files, in_run)


@pytest.mark.parametrize("base", [None, "number_of_netty_threads=2\n"])
def test_exported_files_serve_http_although_the_baseline_is_https(
    outcome: Outcome, tmp_path: Path, base: str | None
) -> None:
    in_run = make_files(tmp_path / "deployment" / "tls")
    assert exported_key_pair(exported(outcome, tmp_path, base), in_run) is None


def test_exported_files_serve_https_with_torchserves_own_certificate(
    outcome: Outcome, tmp_path: Path
) -> None:
    assert exported_key_pair(exported(outcome, tmp_path, HTTPS), None) == KeyPair()


def test_exported_key_pair_keeps_the_password_of_a_keystore(
    outcome: Outcome, tmp_path: Path
) -> None:
    (tmp_path / "store.p12").write_text("")
    base = f"{HTTPS}keystore={tmp_path}/store.p12\nkeystore_pass=do$not\nkeystore_type=PKCS12\n"
    pair = exported_key_pair(exported(outcome, tmp_path, base), None)
    assert pair is not None and pair.lines["keystore_type"] == "PKCS12"
    assert list(pair.variables().values()) == [r"do\$not"]
