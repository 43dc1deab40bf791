"""The formats of export, and what verify compares without a server."""

import asyncio
import json
import subprocess
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import yaml

from search.errors import RunError
from search.export.files import ExportFormat, ExportResult, export
from search.export.verify import Check, Files, compare_settings, verify
from search.report.summary import describe
from search.study.outcome import Outcome
from serving.errors import ArchiveError, ConfigError
from serving.production import DeploymentTarget
from tests.simulated import SimulatedFleet


def written(
    found: Outcome, form: ExportFormat, target: DeploymentTarget | None = None
) -> ExportResult:
    assert found.best is not None
    return export(found.run, found.best, found.spec.archive(), None, form, target)


def checked(found: Outcome, folder: Path) -> list[Check]:
    assert found.best is not None
    files = Files.read(folder, found.spec.model.archive.parent)
    return compare_settings(files, found.best.config.to_dict())


def wrong(checks: list[Check]) -> dict[str, str]:
    return {check.what: check.told for check in checks if not check.passed}


@pytest.mark.parametrize("form", ExportFormat)
def test_every_format_says_what_was_measured(found: Outcome, form: ExportFormat) -> None:
    assert found.best is not None
    folder = written(found, form).folder
    checks = checked(found, folder)
    assert wrong(checks) == {}
    assert {"archive", "workers", "batch_size", "mkl_threads", "jvm.-Xmx"} <= {
        c.what for c in checks
    }
    readme = (folder / "README.md").read_text()
    assert describe(found.best.config) in readme and "250.0 rps" in readme
    assert "$" not in readme.replace("$(", "")


def test_what_was_changed_since_is_named(found: Outcome) -> None:
    folder = written(found, ExportFormat.PROPERTIES).folder
    path = folder / "config.properties"
    text = path.read_text()
    path.write_text(text.replace('"batchSize":', '"batchSize":1') + "io_ratio=70\n")
    (folder / "environment").write_text("MKL_NUM_THREADS=3\nOMP_NUM_THREADS=3\n")
    assert set(wrong(checked(found, folder))) == {
        *("batch_size", "properties.io_ratio", "mkl_threads")
    }
    assert "the trial had 1" in wrong(checked(found, folder))["mkl_threads"]


def test_what_stays_of_the_file_in_use_is_no_difference(found: Outcome) -> None:
    target = DeploymentTarget(
        "# ours\nio_ratio=70\nprivate_key_file=/etc/key.pem\nnetty_client_threads=9\n"
    )
    out = written(found, ExportFormat.PROPERTIES, target)
    assert "-netty_client_threads=9" in out.diff and "+vmargs=-Xmx2g" in out.diff
    assert (out.folder / "changes.diff").read_text() == out.diff
    assert [note for note in out.notes if note.startswith("io_ratio=70 stays")]
    checks = checked(found, out.folder)
    assert wrong(checks) == {}
    assert [c.told for c in checks if c.what == "properties.io_ratio"] == [
        "70; the trial did not set it"
    ]
    path = out.folder / "config.properties"
    path.write_text(path.read_text().replace("io_ratio=70", "io_ratio=80"))
    assert set(wrong(checked(found, out.folder))) == {"properties.io_ratio"}


def test_an_archive_says_what_it_cannot_carry(found: Outcome) -> None:
    out = written(found, ExportFormat.MODEL_CONFIG)
    (note,) = out.notes
    assert note.startswith("an archive cannot carry") and "-Xmx=2g" in note
    assert note in (out.folder / "README.md").read_text()
    held = yaml.safe_load((out.folder / "model-config.yaml").read_text())
    assert held["batchSize"] and "\nmodels=" not in (out.folder / "config.properties").read_text()
    assert "MODEL_STORE:-" in (out.folder / "start.sh").read_text()


def test_the_cpu_launcher_is_not_started_without_its_python(
    found: Outcome,
    tmp_path: Path,
) -> None:
    assert found.best is not None
    config = replace(found.best.config, properties={"cpu_launcher_enable": "true"})
    best = replace(found.best, config=config)
    out = export(found.run, best, found.spec.archive())
    for name in ("python", "torchserve"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} ran\nexit {int(name == 'python')}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "MODEL_STORE": str(tmp_path)}

    def start() -> subprocess.CompletedProcess[str]:
        script = str(out.folder / "start.sh")
        return subprocess.run([script], env=environment, capture_output=True, text=True)

    assert "needs a command python with torch" in start().stderr
    (tmp_path / "python").write_text("#!/bin/sh\n")
    assert start().stdout == "torchserve ran\n"


def test_a_container_has_all_of_it(found: Outcome) -> None:
    given = {"inference_address": "https://127.0.0.1:8443", "private_key_file": "/tls/key.pem"}
    out = written(found, ExportFormat.COMPOSE, DeploymentTarget(given=given))
    service = yaml.safe_load((out.folder / "compose.yaml").read_text())["services"]["torchserve"]
    assert service["ports"] == ["127.0.0.1:8443:8443"] and service["env_file"] == ["environment"]
    text = (out.folder / "config.properties").read_text()
    assert "inference_address=https://0.0.0.0:8443" in text and "vmargs=-Xmx2g" in text
    assert any("/tls/key.pem is a path of the container" in note for note in out.notes)
    assert not (out.folder / "start.sh").exists()


def test_files_that_do_not_start_here_do_not_pass(found: Outcome) -> None:
    folder = written(found, ExportFormat.COMPOSE).folder
    checks = asyncio.run(verify(folder, found.run, None, None, 1, lambda name, rate: None))
    assert wrong(checks) == {"running": "not started: compose.yaml needs a container"}


@pytest.mark.parametrize(
    ("service_s", "holds"), [(1 / 300, True), (1 / 100, False)], ids=["faster", "slower"]
)
def test_verify_offers_the_claimed_rate(
    found: Outcome, monkeypatch: pytest.MonkeyPatch, service_s: float, holds: bool
) -> None:
    server = MagicMock(url="http://simulated/", headers={}, worker_pids={1}, batch_capacity=1)
    server.differences.return_value = []
    server.guard = lambda work: work
    started = MagicMock()
    started.return_value.__aenter__.return_value = server
    module = "search.export.verify"
    monkeypatch.setattr(f"{module}.ExportedServer", started)
    monkeypatch.setattr(f"{module}.Site", MagicMock())
    # Nothing is measured on this host: another servetune may run.
    monkeypatch.setattr(f"{module}.exclusive_host", nullcontext)
    monkeypatch.setattr(f"{module}.Fleet", lambda *_, **__: SimulatedFleet(service_s))
    monkeypatch.setattr("search.spec.schema.StudySpec.installation", lambda self: None)
    folder = written(found, ExportFormat.PROPERTIES).folder
    checks = asyncio.run(verify(folder, found.run, None, None, 3, lambda name, rate: None))
    rate = checks[-1]
    assert (rate.what, rate.passed) == ("claimed rate", holds)
    assert f"held in {3 if holds else 0} of 3 windows" in rate.told
    assert wrong(checks[:-1]) == {}


def test_nothing_is_started_where_settings_differ(found: Outcome) -> None:
    folder = written(found, ExportFormat.PROPERTIES).folder
    (folder / "environment").write_text("")
    checks = asyncio.run(verify(folder, found.run, None, None, 1, lambda name, rate: None))
    assert "not started" in wrong(checks)["running"]


def test_what_cannot_be_verified_is_said(found: Outcome, tmp_path: Path) -> None:
    folder = written(found, ExportFormat.PROPERTIES).folder

    def verified(of: Outcome | None = None, store: Path | None = None) -> None:
        chosen = of.run if of else None
        asyncio.run(verify(folder, chosen, None, store, 1, lambda name, rate: None))

    with pytest.raises(ArchiveError, match="does not exist"):
        verified(store=tmp_path / "nowhere")
    with pytest.raises(RunError, match="what is asked must be told"):
        verified(store=found.spec.model.archive.parent)
    claim = json.loads((folder / "trial.json").read_text())
    (folder / "trial.json").write_text(json.dumps({**claim, "run": "another"}))
    with pytest.raises(RunError, match="is of the run another"):
        verified(found)
    (folder / "trial.json").unlink()
    with pytest.raises(RunError, match="no files that servetune exported"):
        verified()


def test_an_impossible_target_leaves_what_was_there(found: Outcome) -> None:
    before = written(found, ExportFormat.PROPERTIES).folder
    with pytest.raises(ConfigError):
        written(found, ExportFormat.PROPERTIES, DeploymentTarget("models={"))
    assert (before / "trial.json").is_file()
    assert [path.name for path in found.run.folder.glob(".best*")] == []
