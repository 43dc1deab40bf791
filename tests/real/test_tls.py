"""TLS with a real TorchServe: a trial serves and is loaded with the deployment's key pair."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from loadgen.client import Client
from loadgen.measurement import Load
from loadgen.payloads import Payload
from loadgen.schedule import Closed
from search.trial.server_tls import server_tls
from serving.configuration.config import ServerConfig
from serving.configuration.key_pair import KeyPair
from serving.server import TorchServe
from serving.site import Site
from tests.certificates import KeyPair as Files
from tests.certificates import make_authority, make_key_pair, make_keystore
from tests.real.conftest import servetune

PASSWORD = r"do$not\print"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("certificates")
    # A host name that is not the loopback's, as in production.
    return make_key_pair(folder, make_authority(folder), "pets.example.com")


@pytest.mark.parametrize("form", ["files", "keystore"])
async def test_torchserve_answers_over_https_with_the_key_pair(
    site: Callable[..., Site], tmp_path: Path, files: Files, form: str
) -> None:
    if form == "files":
        lines = {"private_key_file": str(files.key), "certificate_file": str(files.certificate)}
        pair = KeyPair(lines)
    else:
        store = make_keystore(files, tmp_path / "store.p12", PASSWORD)
        pair = KeyPair({"keystore": str(store)}, PASSWORD)
    here = replace(site(), key_pair=pair, secrets=pair.variables())
    async with TorchServe(ServerConfig(workers=1), here, tmp_path / "trial") as server:
        assert server.url.startswith("https://")
        client = Client([Payload(b"{}", {"Content-Type": "application/json"})])
        client._url, client._tls = server.url, server_tls(server)
        measured = await client.run(Load(Closed(2, 8), 20.0))
        assert (measured.succeeded, dict(measured.errors)) == (8, {})
        assert await server.counters() is not None
    written = b"".join(path.read_bytes() for path in (tmp_path / "trial").iterdir())
    assert PASSWORD.encode() not in written


@pytest.mark.slow
def test_tune_export_and_verify_an_https_deployment(
    study: Callable[..., Path], files: Files
) -> None:
    path = study(search={"trials": 2}, serving={"baseline": "config.properties"})
    (path.parent / "tls").mkdir()
    for name, file in (("server.key", files.key), ("server.pem", files.certificate)):
        (path.parent / "tls" / name).write_bytes(file.read_bytes())
    (path.parent / "config.properties").write_text(
        "inference_address=https://0.0.0.0:8443\nprivate_key_file=tls/server.key\n"
        "certificate_file=tls/server.pem\nload_models=echo.mar\nnumber_of_netty_threads=2\n"
    )
    process = servetune("tune", path, "--plain")
    output = process.communicate(timeout=280)[0]
    assert process.returncode == 0, output
    (run,) = (path.parent / "runs").iterdir()
    trials = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]
    assert {trial["state"] for trial in trials} <= {"COMPLETE", "PRUNED"}, output
    exported = servetune("export", run, "--base", path.parent / "config.properties")
    output, _ = exported.communicate(timeout=60)
    assert exported.returncode == 0, output
    verified = servetune("verify", run / "best", "--against", run)
    output, _ = verified.communicate(timeout=180)
    assert output.splitlines()[-1] == "PASS", output
