"""Write a trial's configuration as files for production."""

from __future__ import annotations

import difflib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import javaproperties

from search.errors import RunError
from search.export.common import (
    CLAIM_FILE,
    ExportFormat,
    ExportRequest,
    FormatFiles,
    exported_archive,
    fill_template,
)
from search.export.compose import write_compose
from search.export.docker import write_docker
from search.export.exported_files import ExportedFiles, added_settings, compare_settings
from search.export.kserve import write_kserve
from search.export.kubernetes import write_kubernetes
from search.export.model_config import write_model_config
from search.export.properties import write_properties
from search.export.sagemaker import write_sagemaker
from search.export.scaling import DEFAULT_HEADROOM, Resources, Scaling, replicas_for
from search.export.systemd import write_systemd
from search.formats import CLAIM_VERSION
from search.report.confirmation import confirmation_text
from search.report.formatting import format_lower_bound, format_settings
from search.study.confirm import Confirmation
from search.study.diff import flat
from search.study.run_folder import Run
from search.trial.result import TrialResult
from serving.archive import Archive
from serving.deployment import archived_settings
from serving.errors import ConfigError
from serving.production import DeploymentTarget
from serving.server import LOG_CONFIG
from serving.versions import NEWEST, TorchServeVersion, find_version

_WRITERS = {
    ExportFormat.PROPERTIES: write_properties,
    ExportFormat.MODEL_CONFIG: write_model_config,
    ExportFormat.COMPOSE: write_compose,
    ExportFormat.DOCKER: write_docker,
    ExportFormat.SYSTEMD: write_systemd,
    ExportFormat.SAGEMAKER: write_sagemaker,
    ExportFormat.KSERVE: write_kserve,
    ExportFormat.KUBERNETES: write_kubernetes,
}
#: Formats whose files serve every model in a model store.
_FORMATS_OF_SEVERAL_MODELS = (
    ExportFormat.PROPERTIES,
    ExportFormat.MODEL_CONFIG,
    ExportFormat.COMPOSE,
)
_CHANGES_ITEM = "- `changes.diff`: the changes to the config.properties in use.\n"
_UNCONFIRMED = (
    "**Unconfirmed**: the search chose this\nconfiguration because its measured rate was the "
    "highest; that rate is on average too high."
)


@dataclass(frozen=True)
class ExportResult:
    """The written files.

    Attributes:
        folder: the folder that holds them.
        notes: what the user must know before deploying them.
        diff: changes to the config.properties in use; empty without one.
    """

    folder: Path
    notes: tuple[str, ...]
    diff: str


def export(
    run: Run,
    result: TrialResult,
    archive: Archive,
    confirmation: Confirmation | None = None,
    export_format: ExportFormat = ExportFormat.PROPERTIES,
    target: DeploymentTarget | None = None,
    image: str | None = None,
    load_rps: float | None = None,
    headroom: float = DEFAULT_HEADROOM,
) -> ExportResult:
    """Write `best/`, or `best-FORMAT/`, of a run; if it fails, the previous folder stays.

    Args:
        confirmation: used only if it confirmed this trial's configuration.
        target: the deployment; TorchServe's default ports if None.
        image: the container image; None for the format's default, of the version that was measured.
        load_rps: the expected load of all replicas; None if it is not known.
        headroom: share of the claimed rate that is kept free.

    Raises:
        RunError: the trial sustained no rate.
        ConfigError, ArchiveError: the target's files, or the archive, cannot take the settings.
    """
    if not result.sustained_rps:
        raise RunError(f"trial {result.number} sustained no rate: {result.cause or 'no cause'}")
    if confirmation is not None and not _confirms(confirmation, result):
        confirmation = None
    others = run.spec().in_use().beside
    if others and export_format not in _FORMATS_OF_SEVERAL_MODELS:
        raise RunError(
            f"the format {export_format} holds one model, and the configuration was measured with "
            f"{', '.join(other.name for other in others)} beside it; use one of "
            f"{', '.join(_FORMATS_OF_SEVERAL_MODELS)}"
        )
    target = replace(target or DeploymentTarget(), others=others)
    is_default = export_format is ExportFormat.PROPERTIES
    folder = run.folder / ("best" if is_default else f"best-{export_format}")
    new = folder.with_name(f".{folder.name}.new")
    with run.files_locked():
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        try:
            notes, diff = _write_folder(
                new,
                run,
                result,
                archive,
                confirmation,
                export_format,
                target,
                image,
                load_rps,
                headroom,
            )
            _replace_folder(new, folder)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    return ExportResult(folder, notes, diff)


def _replace_folder(new: Path, folder: Path) -> None:
    """Put a folder in the place of another; if it cannot be done, the previous one stays."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if not folder.exists():
        new.rename(folder)
        return
    folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write_folder(
    folder: Path,
    run: Run,
    result: TrialResult,
    archive: Archive,
    confirmation: Confirmation | None,
    export_format: ExportFormat,
    target: DeploymentTarget | None,
    image: str | None,
    load_rps: float | None,
    headroom: float,
) -> tuple[tuple[str, ...], str]:
    """Write the files to an empty folder; return the notes, and the changes to those in use."""
    claim = _claim(run, result, archive, confirmation)
    scaling = _scaling(result, archive, float(claim["claimed_rps"]), load_rps, headroom)
    version = find_version(result.host.facts.get("torchserve")) or NEWEST
    request = ExportRequest(
        folder,
        result.config,
        archive,
        replace(target or DeploymentTarget(), version=version),
        image,
        _effective_settings(result, archive),
        scaling,
        _resources(run, result),
    )
    files = _WRITERS[export_format](request)
    diff = _write_common_files(request, files)
    notes = (*request.target.notes(result.config, archive), *files.notes)
    if secrets := sorted({*run.spec().in_use().secrets, *request.target.secrets}):
        notes += (f"secrets are not exported: set {', '.join(secrets)} in the environment",)
    claim |= {"format": export_format, "kept": {}, "scaling": asdict(scaling)}
    others = request.target.others
    claim["models"] = {other.name: _model_claim(folder, other) for other in others}
    claim = _read_back(folder, claim, result, archive, others)
    notes += _platform_notes(claim["kept"], request)
    (folder / CLAIM_FILE).write_text(json.dumps(claim, indent=2) + "\n")
    changes = _CHANGES_ITEM if request.target.base is not None else ""
    readme = fill_template(
        "readme",
        **_readme_figures(run, result, archive, confirmation),
        use=files.use or _use_of_common_files(files, version),
        more=changes + "".join(f"- Note: {note}.\n" for note in notes),
    )
    (folder / "README.md").write_text(readme)
    return notes, diff


def _confirms(confirmation: Confirmation, result: TrialResult) -> bool:
    winner = confirmation.plan.requests[confirmation.winner]
    return winner.config == result.config and confirmation.is_conclusive


def _effective_settings(result: TrialResult, archive: Archive) -> dict[str, int]:
    """Return the model's settings as the trial's server described them, else the defaults."""
    server = result.server
    defaults = {"batch_size": 1, "max_batch_delay_ms": 100, "response_timeout_s": 120}
    workers = {"workers": server.workers_ready} if server.workers_ready else {}
    return {**defaults, **workers, **archived_settings(archive), **server.settings}


def _scaling(
    result: TrialResult, archive: Archive, rate_rps: float, load_rps: float | None, headroom: float
) -> Scaling:
    settings = _effective_settings(result, archive)
    batches = result.server.batch_capacity or settings["batch_size"]
    capacity = batches + (result.config.job_queue_size or 100)
    replicas = replicas_for(load_rps, rate_rps, headroom) if load_rps is not None else None
    return Scaling(rate_rps, result.latency.p50_s or 0.0, capacity, headroom, replicas)


def _resources(run: Run, result: TrialResult) -> Resources:
    limits = run.spec().serving.limits
    cores, peak_mb = result.host.facts.get("cores"), result.server.peak_memory_mb
    return Resources.of(limits.cpus, limits.memory_mb, cores, peak_mb)


def _read_back(
    folder: Path,
    claim: dict[str, Any],
    result: TrialResult,
    archive: Archive,
    others: Sequence[Archive],
) -> dict[str, Any]:
    """Return the claim with the archive's digest, and with what the files add to the trial.

    Raises:
        ConfigError: the files do not carry a setting of the trial.
    """
    (folder / CLAIM_FILE).write_text(json.dumps(claim))
    with tempfile.TemporaryDirectory(prefix="servetune-export-") as scratch:
        stores = {other.name: other.path for other in others}
        files = ExportedFiles.read(folder, archive.path.parent, Path(scratch), stores)
        config = files.deployment.config
        claim = {**claim, "archive_sha256": files.archive_sha256}
        claim["kept"] = added_settings(config, result.config).to_dict()
        files = replace(files, claim=claim)
        lost = [c for c in compare_settings(files, claim["settings"]) if not c.passed]
    if lost:
        found = "; ".join(f"{check.what}: {check.found}" for check in lost)
        raise ConfigError(
            f"the format {claim['format']} does not carry the trial's settings: {found}"
        )
    return claim


def _platform_notes(kept: Mapping[str, Any], request: ExportRequest) -> tuple[str, ...]:
    """Return a note on what the platform itself adds to the configuration."""
    in_base = flat(request.target.unmeasured(request.config, request.archive).to_dict())
    explicit = flat(request.explicit_config.to_dict())
    added = {
        path: value
        for path, value in flat(dict(kept)).items()
        if path not in in_base and explicit.get(path) != value
    }
    if not added:
        return ()
    entries = ", ".join(f"{path}={value}" for path, value in added.items())
    return (f"the platform sets {entries}: the configuration was measured without",)


def _write_common_files(request: ExportRequest, files: FormatFiles) -> str:
    """Write the files of most formats; return the changes to the config.properties in use."""
    folder, text = request.folder, files.properties_text
    if files.has_environment:
        environment_text = request.target.environment_text(request.config, request.archive)
        (folder / "environment").write_text(environment_text)
        shutil.copy(LOG_CONFIG, folder / "log4j2.xml")
    if text is None:
        return ""
    # Text that servetune writes is ASCII; what stays of a file in use keeps its bytes.
    (folder / files.properties_path).write_bytes(text.encode("latin-1"))
    if request.target.base is None:
        return ""
    lines = (request.target.base.splitlines(keepends=True), text.splitlines(keepends=True))
    diff = "".join(difflib.unified_diff(*lines, "in use", "config.properties"))
    (folder / "changes.diff").write_text(diff)
    return diff


def _claim(
    run: Run, result: TrialResult, archive: Archive, confirmation: Confirmation | None
) -> dict[str, Any]:
    """Return the claimed settings and rate as plain JSON data."""
    load = run.spec().load
    prediction = confirmation.sustained(confirmation.winner) if confirmation is not None else None
    return {
        "format_version": CLAIM_VERSION,
        "run": run.name,
        "trial": result.number,
        "model": archive.name,
        "version": archive.version,
        "archive": archive.path.name,
        "archive_sha256": archive.sha256,
        "settings": result.config.to_dict(),
        "claimed_rps": prediction.low if prediction else result.sustained_rps,
        "claimed_by": (
            "the confirmation: the lower end of the 95 % prediction interval"
            if prediction
            else "the search alone, which is on average too high"
        ),
        "batch_capacity": result.server.batch_capacity or 1,
        "expected_rps": _expected_estimate(result, confirmation),
        "p99_s": result.p99_s,
        "arrivals": load.arrivals,
        "timeout_s": load.timeout_s,
        "mix": dict(load.mix),
        "background": {each.model: each.rate_rps for each in load.background},
    }


def _expected_estimate(result: TrialResult, confirmation: Confirmation | None) -> float | None:
    """Return the rate that one more closed loop is expected to show, requests/s."""
    predicted = confirmation.prediction(confirmation.winner) if confirmation else None
    if predicted is not None:
        return predicted.mean
    return result.estimate.rps if result.estimate else result.sustained_rps


def _model_claim(folder: Path, archive: Archive) -> dict[str, str]:
    """Return the archive of another model, as exported if it is among the files."""
    exported = exported_archive(folder, archive.path.name)
    digest = (Archive.read(exported) if exported.exists() else archive).sha256
    return {"version": archive.version, "archive": archive.path.name, "archive_sha256": digest}


def _readme_figures(
    run: Run, result: TrialResult, archive: Archive, confirmation: Confirmation | None
) -> dict[str, str]:
    load, rate, latency = run.spec().load, result.rate, result.latency
    return {
        "model": archive.name,
        "version": archive.version,
        "run": run.name,
        "status": "confirmed" if confirmation else "unconfirmed",
        "confirmation": confirmation_text(confirmation) if confirmation else _UNCONFIRMED,
        "number": str(result.number),
        "sustained": f"{result.sustained_rps:.1f}",
        "upper": f"{rate.upper_rps:.1f} rps" if rate.upper_rps else "none",
        "requests": str(rate.requests_without_failure),
        "bound": format_lower_bound(rate.success_bound or 0.0),
        "by_batch": format_lower_bound(rate.success_bound_by_batch or 0.0),
        "p50": f"{latency.p50_s or 0:.3f}",
        "p99": f"{latency.p99_s or 0:.3f}",
        "arrivals": load.arrivals,
        "timeout": f"{load.timeout_s:g}",
        "settings": format_settings(result.config),
        "facts": _facts_table(result.host.facts),
    }


def _facts_table(facts: Mapping[str, Any]) -> str:
    # The files may be published: the name of the host is left out.
    return "\n".join(f"| {name} | {value} |" for name, value in facts.items() if name != "host")


def _use_of_common_files(files: FormatFiles, version: TorchServeVersion) -> str:
    """Return what the files are for: addresses, tokens, environment."""
    properties = javaproperties.loads(files.properties_text or "")
    if not version.requires_tokens:
        tokens = (
            f"TorchServe {version.number} has no tokens: anyone who reaches its ports may use them."
        )
    elif properties.get("disable_token_authorization", "").lower() == "true":
        tokens = "**Token authorization is off.**"
    else:
        tokens = fill_template("token_authorization", key_file_place=files.key_file_place).strip()
    default_ports = {"inference": 8080, "management": 8081, "metrics": 8082}
    addresses = {
        name: properties.get(f"{name}_address", f"http://127.0.0.1:{port}")
        for name, port in default_ports.items()
    }
    return fill_template(
        "readme_files",
        **addresses,
        tokens=tokens,
        command=files.command,
        environment_use=files.environment_use,
        items=files.readme_items,
    )
