"""Exports of several models of one server."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import javaproperties
import pytest
import yaml

from search.errors import RunError
from search.export.common import ExportFormat
from search.export.verify import ExportedFiles, compare_settings, verify
from search.spec.importing import import_files
from search.study.outcome import Outcome
from search.study.run_folder import Run
from serving.archive import Archive
from serving.configuration.production import DeploymentTarget
from tests.archives import make_archive
from tests.search.export.conftest import best_config, export_best

ZOO = {"workers": 3, "batch_size": 4}
FORMATS = tuple(f for f in ExportFormat if f is not ExportFormat.SAGEMAKER)
#: The properties of these are not in a snapshot.
STORES = tuple(f for f in FORMATS if f is not ExportFormat.KSERVE)


@pytest.fixture
def two(outcome: Outcome, tmp_path: Path) -> Outcome:
    """The outcome with a second model, `zoo`, in every trial."""
    make_archive(tmp_path / "elsewhere", name="zoo")
    specification = outcome.run.folder / "spec.yaml"
    data = yaml.safe_load(specification.read_text())
    data["serving"]["models"] = {"zoo": str(tmp_path / "elsewhere" / "zoo.mar")}
    data["load"]["mix"] = {"echo": 3.0, "zoo": 1.0}
    data["load"]["requests"] = {"zoo": str(tmp_path / "requests.jsonl")}
    specification.write_text(yaml.safe_dump(data))
    assert outcome.best is not None
    best = replace(outcome.best, config=replace(outcome.best.config, models={"zoo": ZOO}))
    outcome.run.rebuild([*[r for r in outcome.results if r.number != best.number], best])
    run = Run.open(outcome.run.folder)
    return replace(outcome, run=run, spec=run.spec(), best=best)


def failures(outcome: Outcome, folder: Path, model_store: Path | None = None) -> dict[str, str]:
    stores = {} if model_store else {"zoo": outcome.spec.in_use().beside[0].path}
    store = model_store or outcome.spec.model.archive.parent
    files = ExportedFiles.read(folder, store, folder, stores)
    checks = compare_settings(files, best_config(outcome).to_dict())
    assert {"archive of zoo", "models.zoo.batch_size"} <= {check.what for check in checks}
    return {check.what: check.found for check in checks if not check.passed}


@pytest.mark.parametrize("export_format", FORMATS)
def test_export_of_two_models_passes_its_checks(two: Outcome, export_format: ExportFormat) -> None:
    result = export_best(two, export_format)
    assert failures(two, result.folder) == {}
    script = result.folder / "start.sh"
    assert not script.exists() or "echo.mar, zoo.mar" in script.read_text()


@pytest.mark.parametrize("export_format", STORES)
def test_export_of_two_models_loads_both(two: Outcome, export_format: ExportFormat) -> None:
    folder = export_best(two, export_format).folder
    properties = javaproperties.loads((folder / "config.properties").read_text())
    assert properties["load_models"] == "echo.mar,zoo.mar"


def test_export_for_kserve_has_every_model_with_every_setting_in_its_snapshot(two: Outcome) -> None:
    result = export_best(two, ExportFormat.KSERVE)
    text = (result.folder / "config" / "config.properties").read_text()
    snapshot = json.loads(javaproperties.loads(text)["model_snapshot"])
    # KServe's own server reads the file line by line, and registers each model of the snapshot.
    assert json.loads(text.partition("model_snapshot=")[2].splitlines()[0]) == snapshot
    assert snapshot["modelCount"] == 2 and list(snapshot["models"]) == ["echo", "zoo"]
    assert snapshot["models"]["zoo"] == {
        "1.0": {
            **{"defaultVersion": True, "marName": "zoo.mar", "minWorkers": 3, "maxWorkers": 3},
            **{"batchSize": 1, "maxBatchDelay": 100, "responseTimeout": 120},
        }
    }
    readme = (result.folder / "README.md").read_text()
    assert "`echo.mar`, `zoo.mar`" in readme and "/v1/models/zoo:predict" in readme
    assert "the platform sets models" not in "".join(result.notes)


def test_export_for_kserve_is_imported_with_both_models(two: Outcome, tmp_path: Path) -> None:
    folder = export_best(two, ExportFormat.KSERVE).folder
    assert two.best is not None
    shutil.copy(two.spec.model.archive, tmp_path / "elsewhere")
    imported = import_files([folder], tmp_path / "elsewhere" / "echo.mar")
    deployment = imported.deployment.with_models([Archive.read(tmp_path / "elsewhere" / "zoo.mar")])
    config = deployment.config
    assert (config.workers, config.batch_size) == (two.best.config.workers or 1, 1)
    zoo = {"workers": 3, "batch_size": 1, "max_batch_delay_ms": 100, "response_timeout_s": 120}
    assert config.models["zoo"] == zoo


@pytest.mark.parametrize("export_format", [f for f in ExportFormat if f not in FORMATS])
def test_export_refuses_a_format_of_one_model(two: Outcome, export_format: ExportFormat) -> None:
    with pytest.raises(RunError, match=f"{export_format} holds one model, .* with zoo beside it"):
        export_best(two, export_format)


def test_export_changes_the_entries_of_both_models_in_the_base(two: Outcome) -> None:
    entries = {"echo": {"1.0": {"batchSize": 1}}, "zoo": {"1.0": {"batchSize": 1}}}
    base = f"# ours\nload_models=all\nmodels={json.dumps(entries)}\n"
    result = export_best(two, ExportFormat.PROPERTIES, DeploymentTarget(base))
    assert failures(two, result.folder) == {}
    properties = javaproperties.loads((result.folder / "config.properties").read_text())
    models = json.loads(properties["models"])
    assert models["echo"]["1.0"]["batchSize"] == 64
    assert models["zoo"]["1.0"] == {"batchSize": 4, "minWorkers": 3, "maxWorkers": 3}


@pytest.mark.parametrize("export_format", FORMATS)
def test_export_writes_every_archive_if_one_overrides_its_settings(
    two: Outcome, tmp_path: Path, export_format: ExportFormat
) -> None:
    make_archive(tmp_path / "elsewhere", name="zoo", model_config__yaml="batchSize: 9\n")
    result = export_best(two, export_format)
    store = result.folder / "model-store"
    assert {path.name for path in store.iterdir()} == {"echo.mar", "zoo.mar"}
    size = 1 if export_format is ExportFormat.KSERVE else 4
    assert Archive.read(store / "zoo.mar").settings["batchSize"] == size
    assert failures(two, result.folder, tmp_path / "nowhere") == {}


def test_compare_settings_reports_a_changed_model(two: Outcome, tmp_path: Path) -> None:
    folder = export_best(two, ExportFormat.PROPERTIES).folder
    path = folder / "config.properties"
    path.write_text(path.read_text().replace('"batchSize":4', '"batchSize":5'))
    make_archive(tmp_path / "elsewhere", name="zoo", source="# changed")
    failed = failures(two, folder)
    assert failed["models.zoo.batch_size"] == "5; the trial had 4"
    assert failed["archive of zoo"].startswith("a different archive")


async def test_verify_of_a_mix_needs_its_run(two: Outcome, tmp_path: Path) -> None:
    folder = export_best(two, ExportFormat.PROPERTIES).folder
    for archive in (two.spec.model.archive, two.spec.in_use().beside[0].path):
        (tmp_path / "store").mkdir(exist_ok=True)
        (tmp_path / "store" / archive.name).write_bytes(archive.read_bytes())
    requests = tmp_path / "requests.jsonl"
    with pytest.raises(RunError, match="under the load of several models, which only the run has"):
        await verify(folder, None, requests, tmp_path / "store", 1, lambda name, rate: None)
    with pytest.raises(RunError, match="--requests cannot replace a mix"):
        await verify(folder, two.run, requests, None, 1, lambda name, rate: None)
