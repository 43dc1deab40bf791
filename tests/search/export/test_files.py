"""The files that every export format has."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from search.errors import RunError
from search.export.common import ExportFormat
from search.export.files import export
from search.formats import CLAIM_VERSION
from search.report.formatting import format_settings
from search.study.outcome import Outcome
from serving.configuration.production import DeploymentTarget
from serving.errors import ConfigError
from tests.search.export.conftest import best_config, export_best


@pytest.mark.parametrize("export_format", ExportFormat)
def test_export_writes_readme_with_settings_and_rate(
    outcome: Outcome, export_format: ExportFormat
) -> None:
    folder = export_best(outcome, export_format).folder
    readme = (folder / "README.md").read_text()
    assert format_settings(best_config(outcome)) in readme and "250.0 rps" in readme
    assert "$" not in readme.replace("$(", ""), "no placeholder is left"


@pytest.mark.parametrize("export_format", ExportFormat)
def test_export_writes_claim_with_its_version(
    outcome: Outcome, export_format: ExportFormat
) -> None:
    claim = json.loads((export_best(outcome, export_format).folder / "trial.json").read_text())
    assert claim["format_version"] == CLAIM_VERSION
    assert (claim["format"], claim["trial"], claim["claimed_rps"]) == (export_format, 3, 250.0)


def test_export_writes_complete_folder_without_local_paths(
    outcome: Outcome, tmp_path: Path
) -> None:
    assert outcome.best is not None
    folder = export(outcome.run, outcome.best, outcome.spec.archive()).folder
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.properties",
        "environment",
        "log4j2.xml",
        "start.sh",
        "README.md",
        "trial.json",
    }
    text = (folder / "config.properties").read_text()
    assert "disable_token_authorization=false" in text and "vmargs=-Xmx2g" in text
    assert (folder / "environment").read_text() == "MKL_NUM_THREADS=1\nOMP_NUM_THREADS=1\n"
    readme = (folder / "README.md").read_text()
    assert "**Unconfirmed**" in readme and "250.0 rps" in readme and "99.75 %" in readme
    assert str(tmp_path) not in "".join(path.read_text() for path in folder.iterdir())
    assert export(outcome.run, outcome.best, outcome.spec.archive()).folder == folder


def test_export_marks_only_the_confirmed_trial_as_confirmed(confirmed: Outcome) -> None:
    assert confirmed.chosen is not None and confirmed.chosen.number == 3
    archive = confirmed.spec.archive()
    folder = export(confirmed.run, confirmed.chosen, archive, confirmed.confirmation).folder
    readme = (folder / "README.md").read_text()
    assert ": confirmed\n" in readme and "Confirmed in 2 rounds: trial 3 sustains 233 rps" in readme
    claim = json.loads((folder / "trial.json").read_text())
    assert claim["claimed_rps"] < 233 and claim["claimed_by"].startswith("the confirmation")
    other = export(confirmed.run, confirmed.results[1], archive, confirmed.confirmation).folder
    assert "**Unconfirmed**" in (other / "README.md").read_text(), "trial 1 was not confirmed"


def test_export_refuses_trial_without_rate(outcome: Outcome) -> None:
    with pytest.raises(RunError, match="trial 4 sustained no rate: worker died"):
        export(outcome.run, outcome.results[4], outcome.spec.archive())


def test_export_keeps_previous_files_if_target_is_invalid(outcome: Outcome) -> None:
    before = export_best(outcome, ExportFormat.PROPERTIES).folder
    with pytest.raises(ConfigError):
        export_best(outcome, ExportFormat.PROPERTIES, DeploymentTarget("models={"))
    assert (before / "trial.json").is_file()
    assert [path.name for path in outcome.run.folder.glob(".best*")] == []


def test_export_writes_changes_of_the_config_properties_in_use(outcome: Outcome) -> None:
    target = DeploymentTarget("# ours\nio_ratio=70\nnetty_client_threads=9\n")
    result = export_best(outcome, ExportFormat.PROPERTIES, target)
    assert "-netty_client_threads" not in result.diff and "+vmargs=-Xmx2g" in result.diff
    assert (result.folder / "changes.diff").read_text() == result.diff
    assert "changes.diff" in (result.folder / "README.md").read_text()
    kept = [note.partition(" is kept")[0] for note in result.notes]
    assert kept == ["netty_client_threads=9", "io_ratio=70"]


@pytest.mark.parametrize(
    ("p99_s", "queue", "note"),
    [
        (None, 1000, ""),
        (5.0, 1000, ""),
        (
            0.2,
            1000,
            "the last request in a full queue of 1000 is answered after 4.01 s, later than the "
            "limit of 0.2 s on p99: job_queue_size=48 would refuse it at once instead",
        ),
        (0.2, None, "in a full queue of 100 is answered after 0.408 s"),
        (0.2, 48, ""),
    ],
)
def test_export_notes_a_queue_in_which_requests_miss_the_limit(
    outcome: Outcome, p99_s: float | None, queue: int | None, note: str
) -> None:
    spec = yaml.safe_load((outcome.run.folder / "spec.yaml").read_text())
    spec["goal"]["limits"] = {"p99_s": p99_s}
    (outcome.run.folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    best = outcome.best
    assert best is not None
    changed = replace(best, config=replace(best.config, job_queue_size=queue))
    notes = [
        n for n in export(outcome.run, changed, outcome.spec.archive()).notes if "full queue" in n
    ]
    assert len(notes) == bool(note) and note in "".join(notes)


def test_export_names_the_secrets_that_it_leaves_out(outcome: Outcome) -> None:
    target = DeploymentTarget("load_models=all\n", {}, {"HF_TOKEN": "hidden", "MODEL": "a"})
    result = export_best(outcome, ExportFormat.PROPERTIES, target)
    assert "secrets are not exported: set HF_TOKEN in the environment" in result.notes
    written = "".join(path.read_text() for path in result.folder.iterdir())
    assert "hidden" not in written and "MODEL=a" in written


@pytest.mark.parametrize(
    "line",
    [
        "inference_address=https://0.0.0.0:8443\nkeystore=a.p12\nkeystore_pass=$$STORE_PASSWORD$$",
        "allowed_urls=https://me:$$STORE_PASSWORD$$@host/.*",
    ],
)
def test_export_reads_lines_back_that_name_a_secret(outcome: Outcome, line: str) -> None:
    environment = {"STORE_PASSWORD": "hidden"}
    target = DeploymentTarget(f"{line}\nload_models=all\n", {}, environment)
    result = export_best(outcome, ExportFormat.PROPERTIES, target)
    assert line in (result.folder / "config.properties").read_text()
    assert json.loads((result.folder / "trial.json").read_text())["secrets"] == ["STORE_PASSWORD"]
    assert "hidden" not in "".join(path.read_text() for path in result.folder.iterdir())


def test_export_keeps_a_secret_in_vmargs_of_the_base(outcome: Outcome) -> None:
    target = DeploymentTarget("vmargs=-Xmx1g -Da.password=hidden\nload_models=all\n")
    result = export_best(outcome, ExportFormat.PROPERTIES, target)
    assert not any("secrets are not exported" in note for note in result.notes)
    assert "-Da.password=hidden" in (result.folder / "config.properties").read_text()
    others = [path for path in result.folder.iterdir() if path.name != "config.properties"]
    assert "hidden" not in result.diff + "".join(path.read_text() for path in others)


@pytest.mark.parametrize(
    ("envelope", "named"), [("", "kserve"), ("json", "kserve"), ("kservev2", "kservev2")]
)
def test_export_for_kserve_refuses_batches(outcome: Outcome, envelope: str, named: str) -> None:
    assert outcome.best is not None
    properties = {"service_envelope": envelope} if envelope else {}
    config = replace(outcome.best.config, batch_size=2, properties=properties)
    result = replace(outcome.best, config=config)
    with pytest.raises(ConfigError, match=f"batch_size must be 1 .got 2.: the envelope {named} "):
        export(outcome.run, result, outcome.spec.archive(), None, ExportFormat.KSERVE)


@pytest.mark.parametrize("export_format", [ExportFormat.PROPERTIES, ExportFormat.SYSTEMD])
@pytest.mark.parametrize("envelope", ["kserve", "kservev2"])
def test_export_refuses_batches_with_the_envelope_of_the_base(
    outcome: Outcome, export_format: ExportFormat, envelope: str
) -> None:
    target = DeploymentTarget(f"service_envelope={envelope}\nload_models=all\n")
    with pytest.raises(ConfigError, match=f"must be 1 .got 64.: the envelope {envelope} "):
        export_best(outcome, export_format, target)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("keystore_pass=hidden", "keystore_pass"),
        ("vmargs=-Xmx1g -Da.password=hidden", "-Da.password"),
        ("# keystore_pass=hidden", "a comment"),
    ],
)
@pytest.mark.parametrize(
    ("export_format", "files"),
    [
        (ExportFormat.KUBERNETES, "configmap.yaml and config.properties"),
        (ExportFormat.COMPOSE, "config.properties"),
        (ExportFormat.DOCKER, "config.properties"),
    ],
)
def test_export_notes_the_secrets_in_the_lines_of_the_base(
    outcome: Outcome, line: str, name: str, export_format: ExportFormat, files: str
) -> None:
    target = DeploymentTarget(f"{line}\nload_models=all\n")
    result = export_best(outcome, export_format, target)
    assert any(
        note.startswith(f"secrets are in plain text in {files}, in {name}: ")
        for note in result.notes
    )
    assert "secrets are in plain text" in (result.folder / "README.md").read_text()
    assert not any("no file of a run" in note for note in result.notes)
    written = {
        str(path.relative_to(result.folder))
        for path in result.folder.rglob("*")
        if path.is_file() and "hidden" in path.read_text(errors="replace")
    }
    assert written == set(files.split(" and "))


@pytest.mark.parametrize("line", ["keystore=a.p12", "# no secret", "vmargs=-Xmx1g"])
def test_export_notes_no_secret_without_one(outcome: Outcome, line: str) -> None:
    target = DeploymentTarget(f"{line}\nload_models=all\n")
    result = export_best(outcome, ExportFormat.KUBERNETES, target)
    assert not any("plain text" in note for note in result.notes)
