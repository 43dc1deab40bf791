"""TorchServe started as each platform starts it describes itself as the trial's server did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from loadgen.payloads import Payload
from search.export.common import ExportFormat
from search.export.exported_files import ExportedFiles
from search.export.files import export
from search.export.platform_requests import platform_payloads
from search.study.outcome import Outcome
from serving.configuration.config import MODEL_KEYS, ServerConfig
from serving.exported import ExportedServer
from serving.installation import find_installation
from serving.site import Site
from tests.archives import make_archive
from tests.real.conftest import servetune
from tests.real.test_study import run_folder
from tests.search.conftest import measured_files, outcome  # noqa: F401
from tests.search.export.conftest import carried_by

pytestmark = pytest.mark.timeout(120)

TUNED = ServerConfig(
    workers=2,
    batch_size=6,
    max_batch_delay_ms=7,
    netty_threads=3,
    mkl_threads=1,
    job_queue_size=77,
    environment={"OMP_WAIT_POLICY": "PASSIVE"},
    jvm={"-Xmx": "300m"},
)


@pytest.mark.parametrize("version", ["1.0", "2.1"])
@pytest.mark.parametrize("export_format", ExportFormat)
async def test_exported_server_describes_itself_as_the_trial(
    outcome: Outcome,  # noqa: F811
    tmp_path: Path,
    export_format: ExportFormat,
    version: str,
) -> None:
    if version != "1.0" and export_format is not ExportFormat.SAGEMAKER:
        pytest.skip("only SageMaker's container expects a version")
    make_archive(tmp_path, version=version, model_config__yaml="batchSize: 3\nnote: kept\n")
    assert outcome.best is not None
    tuned = carried_by(export_format, TUNED)
    result = replace(outcome.best, config=tuned)
    archive = outcome.spec.archive()
    folder = export(outcome.run, result, archive, None, export_format).folder
    files = ExportedFiles.read(folder, archive.path.parent, tmp_path)
    site = Site(files.archive, find_installation())
    server = ExportedServer(folder, files.platform, tuned, site, tmp_path / "logs")
    async with server, aiohttp.ClientSession() as session:
        assert server.differences() == []
        described = {name: server.models[files.archive.name].settings[name] for name in MODEL_KEYS}
        wanted = {name: getattr(tuned, name) for name in MODEL_KEYS}
        assert {n: v for n, v in described.items() if wanted[n] is not None} == {
            n: v for n, v in wanted.items() if v is not None
        }
        payload = Payload(b'{"a": 1}', {"Content-Type": "application/json"})
        (payload,) = platform_payloads([payload], files.platform, tuned)
        headers = {**payload.headers, **server.headers}
        async with session.post(server.url, data=payload.body, headers=headers) as response:
            assert response.status == 200, await response.text()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_verify_confirms_the_claimed_rate_of_every_target(study: Callable[..., Path]) -> None:
    path = study(search={"trials": 3})
    tuned = servetune("tune", path, "--plain")
    output, _ = tuned.communicate(timeout=600)
    assert tuned.returncode == 0, output
    folder, verdicts = run_folder(path), {}
    for each in ExportFormat:
        # KServe takes only the default, which has no batches.
        choice = ["--trial", 0] if each is ExportFormat.KSERVE else []
        exported = servetune("export", folder, "--format", each, *choice)
        output, _ = exported.communicate(timeout=60)
        name = "best" if each is ExportFormat.PROPERTIES else f"best-{each}"
        assert (folder / name / "trial.json").is_file(), output
        verified = servetune("verify", folder / name, "--against", folder)
        output, _ = verified.communicate(timeout=180)
        verdicts[each] = output.splitlines()[-1]
        print(output)  # The cause, if it fails.
    assert verdicts == dict.fromkeys(ExportFormat, "PASS")
