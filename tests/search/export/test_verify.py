"""Checks of exported files, with a simulated server."""

import asyncio
import json
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import yaml

from search.errors import RunError
from search.export.common import ExportFormat
from search.export.exported_files import Check, ExportedFiles, compare_settings
from search.export.verify import verify
from search.study.outcome import Outcome
from search.study.run_folder import Run
from serving.archive import Archive
from serving.configuration.production import DeploymentTarget
from serving.errors import ArchiveError
from serving.limits import Limits
from serving.sagemaker_archive import unpack_model_tar
from tests.archives import make_archive
from tests.search.export.conftest import best_config, export_best
from tests.simulated import SimulatedFleet


def check_settings(outcome: Outcome, folder: Path) -> list[Check]:
    with tempfile.TemporaryDirectory() as scratch:
        files = ExportedFiles.read(folder, outcome.spec.model.archive.parent, Path(scratch))
        return compare_settings(files, best_config(outcome).to_dict())


def run_verify(
    folder: Path, outcome: Outcome | None, store: Path | None = None, windows: int = 1
) -> list[Check]:
    run = outcome.run if outcome else None
    return asyncio.run(verify(folder, run, None, store, windows, lambda name, rate_rps: None))


def failures(checks: list[Check]) -> dict[str, str]:
    return {check.what: check.found for check in checks if not check.passed}


@pytest.mark.parametrize("export_format", ExportFormat)
def test_compare_settings_passes_unchanged_files(
    outcome: Outcome, export_format: ExportFormat
) -> None:
    checks = check_settings(outcome, export_best(outcome, export_format).folder)
    assert failures(checks) == {}
    names = {check.what for check in checks}
    assert {"archive", "workers", "batch_size", "mkl_threads", "jvm.-Xmx"} <= names


@pytest.mark.parametrize("export_format", [f for f in ExportFormat if f != "sagemaker"])
def test_compare_settings_reads_the_model_config_of_the_archive(
    outcome: Outcome, tmp_path: Path, export_format: ExportFormat
) -> None:
    make_archive(tmp_path, model_config__yaml="batchSize: 4\nmaxBatchDelay: 9\n")
    result = export_best(outcome, export_format)
    assert failures(check_settings(outcome, result.folder)) == {}
    archive = Archive.read(result.folder / "model-store" / "echo.mar")
    assert archive.settings["maxBatchDelay"] == 9
    assert archive.settings["batchSize"] == best_config(outcome).batch_size
    is_noted = any("takes precedence over config.properties" in note for note in result.notes)
    assert is_noted is (export_format is not ExportFormat.MODEL_CONFIG)
    if export_format is ExportFormat.KSERVE:
        return  # A snapshot takes precedence over any archive.
    # Without the exported archive, the original one overrides the setting.
    (result.folder / "model-store" / "echo.mar").unlink()
    failed = failures(check_settings(outcome, result.folder))
    assert failed["batch_size"] == "4; the trial had 64"


def test_compare_settings_reads_the_model_config_in_model_tar(
    outcome: Outcome, tmp_path: Path
) -> None:
    make_archive(tmp_path, model_config__yaml="batchSize: 4\nmaxBatchDelay: 9\n", version="2.1")
    result = export_best(outcome, ExportFormat.SAGEMAKER)
    assert failures(check_settings(outcome, result.folder)) == {}
    archive = unpack_model_tar(result.folder / "model.tar.gz", tmp_path / "unpacked")
    assert archive.settings["batchSize"] == 64 and archive.settings["maxBatchDelay"] == 9
    assert archive.version == "1.0", "the container sets the variables for this version only"
    assert any("model.tar.gz carries" in note for note in result.notes)


def test_compare_settings_reports_changed_files(outcome: Outcome) -> None:
    folder = export_best(outcome, ExportFormat.PROPERTIES).folder
    path = folder / "config.properties"
    text = path.read_text()
    path.write_text(text.replace('"batchSize":', '"batchSize":1') + "io_ratio=70\n")
    (folder / "environment").write_text("MKL_NUM_THREADS=3\nOMP_NUM_THREADS=3\n")
    failed = failures(check_settings(outcome, folder))
    assert set(failed) == {"batch_size", "properties.io_ratio", "mkl_threads"}
    assert failed["mkl_threads"] == "3; the trial had 1"


def test_compare_settings_accepts_settings_kept_from_the_file_in_use(outcome: Outcome) -> None:
    target = DeploymentTarget("io_ratio=70\nprivate_key_file=/etc/key.pem\n")
    folder = export_best(outcome, ExportFormat.PROPERTIES, target).folder
    checks = check_settings(outcome, folder)
    assert failures(checks) == {}
    assert [check.found for check in checks if check.what == "properties.io_ratio"] == [
        "70; the trial did not set it"
    ]
    path = folder / "config.properties"
    path.write_text(path.read_text().replace("io_ratio=70", "io_ratio=80"))
    assert set(failures(check_settings(outcome, folder))) == {"properties.io_ratio"}


def test_verify_starts_no_server_if_settings_differ(outcome: Outcome) -> None:
    folder = export_best(outcome, ExportFormat.PROPERTIES).folder
    (folder / "environment").write_text("")
    failed = failures(run_verify(folder, outcome))
    assert failed["running"] == "not started, because a check above failed"


def test_verify_accepts_files_of_renamed_run(outcome: Outcome) -> None:
    export_best(outcome, ExportFormat.PROPERTIES)
    folder = outcome.run.folder.rename(outcome.run.folder.with_name("renamed"))
    (folder / "best" / "environment").write_text("")
    checks = run_verify(folder / "best", replace(outcome, run=Run.open(folder)))
    assert set(failures(checks)) == {"mkl_threads", "running"}


def simulate_server(monkeypatch: pytest.MonkeyPatch, fleet: SimulatedFleet) -> MagicMock:
    """Let `verify` start no server, and load a simulated one; return what stands for its class."""
    server = MagicMock(url="http://simulated/", headers={}, worker_pids={1}, batch_capacity=1)
    server.differences.return_value = []
    server.guard = lambda work: work
    exported_server = MagicMock()
    exported_server.return_value.__aenter__.return_value = server
    module = "search.export.loaded_server"
    monkeypatch.setattr(f"{module}.ExportedServer", exported_server)
    # Nothing is measured on this host: another servetune may run.
    monkeypatch.setattr("search.export.verify.exclusive_host", nullcontext)
    monkeypatch.setattr(f"{module}.Fleet", lambda *_, **__: fleet)
    monkeypatch.setattr("search.spec.schema.StudySpec.installation", lambda self: None)
    return exported_server


@pytest.mark.parametrize(
    ("export_format", "service_s", "passes"),
    [(export_format, 1 / 300, True) for export_format in ExportFormat]
    + [(ExportFormat.PROPERTIES, 1 / 100, False)],
)
def test_verify_offers_the_claimed_rate(
    outcome: Outcome,
    monkeypatch: pytest.MonkeyPatch,
    export_format: ExportFormat,
    service_s: float,
    passes: bool,
) -> None:
    exported_server = simulate_server(monkeypatch, SimulatedFleet(service_s))
    specification = outcome.run.folder / "spec.yaml"
    data = yaml.safe_load(specification.read_text())
    data["serving"]["limits"] = {"cpus": 1.0, "memory_mb": 900}
    specification.write_text(yaml.safe_dump(data))
    folder = export_best(outcome, export_format).folder
    checks = run_verify(folder, outcome, windows=3)
    site = exported_server.call_args.args[3]
    assert site.limits == Limits(1.0, 900 << 20), "the claim was measured under these limits"
    (rate,) = (check for check in checks if check.what == "claimed rate")
    assert rate.passed == passes
    assert f"250.0 rps sustained in {3 if passes else 0} of 3 windows" in rate.found
    assert failures(checks).keys() == (set() if passes else {"claimed rate"})
    assert (checks[-1].what == "claimed p99") is passes


def test_verify_fails_if_the_latency_is_above_the_claim(
    outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate_server(monkeypatch, SimulatedFleet(0.8, servers=300))
    checks = run_verify(export_best(outcome, ExportFormat.PROPERTIES).folder, outcome, windows=3)
    assert failures(checks) == {
        "claimed p99": "0.8 s in the best window; 0.5 s claimed, and 0.77 s allowed"
    }


def test_verify_names_the_cause_if_no_request_succeeds(
    outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate_server(monkeypatch, SimulatedFleet(1 / 300, fail_every=1))
    checks = run_verify(export_best(outcome, ExportFormat.PROPERTIES).folder, outcome, windows=3)
    found = failures(checks)["claimed rate"]
    assert found.startswith("250.0 rps sustained in 0 of 3 windows: no request succeeded: ")
    assert found.endswith(" × status 500")


def test_verify_refuses_missing_inputs(outcome: Outcome, tmp_path: Path) -> None:
    folder = export_best(outcome, ExportFormat.PROPERTIES).folder
    with pytest.raises(ArchiveError, match="does not exist"):
        run_verify(folder, None, tmp_path / "nowhere")
    with pytest.raises(
        ArchiveError, match=r"the archive \w+.mar; pass --against RUN or --model-store"
    ):
        run_verify(folder, None)
    with pytest.raises(RunError, match="no requests to send: pass --against RUN or --requests"):
        run_verify(folder, None, outcome.spec.model.archive.parent)
    (folder / "trial.json").unlink()
    with pytest.raises(RunError, match="contains no files exported by servetune"):
        run_verify(folder, None)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"run": "another"}, "was exported from trial 3 of another, which "),
        ({"format_version": 99}, "trial.json has format_version 99, .* servetune reads 5"),
    ],
    ids=["another run", "a later version"],
)
def test_verify_refuses_claim(outcome: Outcome, changes: dict[str, object], sentence: str) -> None:
    folder = export_best(outcome, ExportFormat.PROPERTIES).folder
    claim = json.loads((folder / "trial.json").read_text())
    (folder / "trial.json").write_text(json.dumps({**claim, **changes}))
    with pytest.raises(RunError, match=sentence):
        run_verify(folder, outcome)


def test_verify_refuses_claim_without_version(outcome: Outcome) -> None:
    folder = export_best(outcome, ExportFormat.PROPERTIES).folder
    claim = json.loads((folder / "trial.json").read_text())
    del claim["format_version"]
    (folder / "trial.json").write_text(json.dumps(claim))
    with pytest.raises(RunError, match=r"format_version 1, .* servetune reads 5"):
        run_verify(folder, outcome)
