"""Other versions of TorchServe: each serves with its own properties, and is tuned."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
import yaml

from servetune.errors import FailureKind
from serving.archive import Archive
from serving.configuration.config import ServerConfig
from serving.configuration.versions import SUPPORTED
from serving.errors import ServerError
from serving.installation import find_installation
from serving.server import TorchServe
from serving.site import Site
from tests.archives import make_archive
from tests.real.conftest import BATCHED, counted, servetune

slow = pytest.mark.slow
#: KServe's version is tested by `make test`, all others by `make test-all`.
VERSIONS = [
    pytest.param(number, marks=() if number == "0.9.0" else slow)
    for number in SUPPORTED
    if number != "0.12.0"
]


@pytest.fixture(scope="session")
def interpreters(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that returns the interpreter with a version of TorchServe.

    Each environment has only that TorchServe. Everything else, torch too, is that of the tests.
    """
    root = tmp_path_factory.mktemp("environments")

    def install(version: str) -> Path:
        folder = root / version
        python = folder / "bin" / "python"
        if not python.exists():
            venv.create(folder, symlinks=True)
            (site_packages,) = folder.glob("lib/python*/site-packages")
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
            target = ["--target", str(site_packages), f"torchserve=={version}"]
            subprocess.run([*pip, *target], check=True)
            command = folder / "bin" / "torchserve"  # pip writes one for its own interpreter.
            command.write_text(f"#!{python}\nfrom ts.model_server import start\n\nstart()\n")
            command.chmod(0o755)
            # Behind this environment's own packages.
            (site_packages / "zz.pth").write_text(sysconfig.get_path("purelib") + "\n")
        return python

    return install


@pytest.mark.parametrize("version", VERSIONS)
async def test_torchserve_of_another_version_serves(
    interpreters: Callable[[str], Path], tmp_path: Path, version: str
) -> None:
    installation = find_installation(str(interpreters(version)))
    assert installation.torchserve_version == version
    archive = Archive.read(make_archive(tmp_path, BATCHED))
    config = ServerConfig(
        workers=1, batch_size=4, max_batch_delay_ms=5000, response_timeout_s=33, mkl_threads=1
    )
    async with TorchServe(config, Site(archive, installation), tmp_path / "trial") as server:
        statuses = await asyncio.gather(*[ask(server.url) for _ in range(8)])
        assert statuses == [200] * 8, "without a token"
        counters = await counted(server, 8, 1 + 2)
        assert (counters.answered, counters.batches) == (8, 1 + 2), "every batch was full"
        assert counters.queue_us > 0 and counters.inference_us > counters.queue_us
        described = installation.version.describes_timeouts
        (model,) = server.models.values()
        assert model.settings.get("response_timeout_s") == (33 if described else None)
    written = (tmp_path / "trial" / "config.properties").read_text()
    assert ("disable_token_authorization" in written) == installation.version.requires_tokens


async def ask(url: str) -> int:
    async with aiohttp.ClientSession() as session, session.post(url, json={}) as answer:
        await answer.read()
        return answer.status


@pytest.mark.parametrize("version", VERSIONS)
async def test_torchserve_of_another_version_applies_settings_to_an_archive_with_its_own(
    interpreters: Callable[[str], Path], tmp_path: Path, version: str
) -> None:
    model_config = "minWorkers: 2\nmaxWorkers: 2\nbatchSize: 2\nresponseTimeout: 60\n"
    archive = Archive.read(make_archive(tmp_path, BATCHED, model_config__yaml=model_config))
    site = Site(archive, find_installation(str(interpreters(version))))
    config = ServerConfig(workers=1, batch_size=8, response_timeout_s=1, netty_threads=1)
    async with TorchServe(config, site, tmp_path / "trial") as server:
        assert (len(server.worker_pids), server.batch_capacity) == (1, 8)
        assert await ask(server.url) == 200


async def test_torchserve_0_9_0_applies_a_timeout_that_it_does_not_describe(
    interpreters: Callable[[str], Path], tmp_path: Path
) -> None:
    hangs = BATCHED.replace("time.sleep(0.1)", "time.sleep(30)")
    archive = Archive.read(make_archive(tmp_path, hangs))
    site = Site(archive, find_installation(str(interpreters("0.9.0"))))
    config = ServerConfig(workers=1, response_timeout_s=1, netty_threads=1)
    async with TorchServe(config, site, tmp_path / "trial") as server:
        assert await asyncio.wait_for(ask(server.url), 20) == 500


@pytest.mark.parametrize(
    "source, cause",
    [
        pytest.param(
            "import no_such_module\n\ndef handle(data, context):\n    return data\n",
            "no_such_module",
            id="import",
        ),
        pytest.param(
            "def handle(data, context):\n    raise ValueError('no weights')\n",
            "no weights",
            id="initialization",
            marks=slow,
        ),
        pytest.param(
            "import os\n\ndef handle(data, context):\n    os._exit(3)\n",
            "exits with status 3",
            id="exit",
            marks=slow,
        ),
    ],
)
async def test_torchserve_0_9_0_reports_the_error_of_a_handler_that_does_not_load(
    interpreters: Callable[[str], Path], tmp_path: Path, source: str, cause: str
) -> None:
    archive = Archive.read(make_archive(tmp_path, source))
    site = Site(archive, find_installation(str(interpreters("0.9.0"))), ready_timeout_s=100)
    with pytest.raises(ServerError) as caught:
        async with TorchServe(ServerConfig(workers=1), site, tmp_path / "trial"):
            pass
    assert caught.value.kind is FailureKind.MODEL_NOT_LOADED
    assert cause in caught.value.log


@slow
def test_tune_with_torchserve_0_9_0_ends_with_files_that_serve(
    interpreters: Callable[[str], Path], study: Callable[..., Path]
) -> None:
    python = interpreters("0.9.0")
    path = study(search={"trials": 3}, serving={"python": str(python), "baseline": "c.properties"})
    entry = {"minWorkers": 1, "maxWorkers": 1, "batchSize": 2, "maxBatchDelay": 20}
    snapshot = {"echo": {"1.0": {"defaultVersion": True, "marName": "echo.mar", **entry}}}
    (path.parent / "c.properties").write_text(
        f"model_snapshot={json.dumps({'name': 's', 'modelCount': 1, 'models': snapshot})}\n"
        "enable_model_api=true\n"
    )
    process = servetune("tune", path, "--plain")
    output = process.communicate(timeout=280)[0]
    assert process.returncode == 0, output
    assert "enable_model_api=true" in output, "the baseline's line has no effect in 0.9.0"
    (run,) = (path.parent / "runs").iterdir()
    trials = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]
    assert {trial["host"]["facts"]["torchserve"] for trial in trials} == {"0.9.0"}
    assert {trial["state"] for trial in trials} <= {"COMPLETE", "PRUNED"}, output
    exported = servetune("export", run).communicate(timeout=60)[0]
    assert "TorchServe 0.9.0 has no tokens" in (run / "best" / "README.md").read_text(), exported
    verification = servetune("verify", run / "best", "--against", run).communicate(timeout=180)[0]
    # All settings are as claimed; whether the rate holds now depends on the host.
    assert verification.splitlines()[-1] in ("PASS", "FAIL: claimed rate"), verification


def test_tune_refuses_properties_that_the_version_does_not_read(
    interpreters: Callable[[str], Path], study: Callable[..., Path]
) -> None:
    path = study(serving={"python": str(interpreters("0.9.0"))})
    data = yaml.safe_load(path.read_text())
    data["space"]["properties"] = {"enable_model_api": [True, False]}
    path.write_text(yaml.safe_dump(data))
    process = servetune("tune", path, "--plain")
    output = " ".join(process.communicate(timeout=60)[0].split())
    assert process.returncode == 2
    assert "space.properties.enable_model_api: property enable_model_api is not known" in output
    assert "TorchServe 0.9.0" in output


def test_doctor_reports_the_version(interpreters: Callable[[str], Path]) -> None:
    output = servetune("doctor", "--python", interpreters("0.9.0")).communicate(timeout=60)[0]
    assert "0.9.0 in" in output and "supported: 0.8.1" in output
