"""Write a trial's configuration as files for production."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from search.answer.confirmed import Confirmed
from search.answer.latency_curve import LatencyCurve
from search.answer.operating_points import latency_points
from search.answer.scaling import Scaling
from search.atomic_files import replace_folder
from search.confirmation.confirmation import Confirmation
from search.errors import RunError
from search.export.claim import claim_of, read_back
from search.export.common import (
    CLAIM_FILE,
    ExportFormat,
    ExportRequest,
    FormatFiles,
    fill_template,
)
from search.export.compose import write_compose
from search.export.docker import write_docker
from search.export.kserve import write_kserve
from search.export.kubernetes import write_kubernetes
from search.export.model_config import write_model_config
from search.export.properties import write_properties
from search.export.pull_request import redacted_diff
from search.export.readme import figures, use_of_common_files
from search.export.resources import Resources
from search.export.sagemaker import write_sagemaker
from search.export.systemd import write_systemd
from search.headroom import DEFAULT_HEADROOM
from search.study.diff import flat
from search.study.run_folder import Run
from search.trial.result import TrialResult
from serving.archive import Archive
from serving.configuration.config import MODEL_KEYS
from serving.configuration.defaults import DEFAULT_JOB_QUEUE_SIZE
from serving.configuration.deployment import archived_settings
from serving.configuration.production import DeploymentTarget
from serving.configuration.secret_lines import secret_names
from serving.configuration.versions import NEWEST, find_version
from serving.limits import Limits
from serving.server import LOG_CONFIG

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
    ExportFormat.DOCKER,
    ExportFormat.SYSTEMD,
    ExportFormat.KSERVE,
    ExportFormat.KUBERNETES,
)
#: Formats whose files start TorchServe on a host, without a container or a unit.
_FORMATS_WITHOUT_LIMITS = (ExportFormat.PROPERTIES, ExportFormat.MODEL_CONFIG)
_CHANGES_ITEM = "- `changes.diff`: the changes to the config.properties in use.\n"


@dataclass(frozen=True)
class ExportResult:
    """The written files.

    Attributes:
        folder: the folder that holds them.
        notes: what the user must know before deploying them.
        diff: changes to the config.properties in use, without secrets; empty without one.
        resource_name: the name of the platform's resources.
        confirmation: that of this trial; None if it was not confirmed.
    """

    folder: Path
    notes: tuple[str, ...]
    diff: str
    resource_name: str
    confirmation: Confirmation | None


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
        confirmation: used only if it measured this trial's configuration.
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
    confirmed = Confirmed.of(confirmation, result.config)
    if confirmed is not None and confirmed.sustained is None:
        confirmed = None
    others = run.spec().in_use().beside
    if others and export_format not in _FORMATS_OF_SEVERAL_MODELS:
        raise RunError(
            f"the format {export_format} holds one model, and the configuration was measured with "
            f"{', '.join(other.name for other in others)} beside it: SageMaker's container writes "
            "the settings of one model only, and a multi-model endpoint ignores its variables and "
            "loads and unloads models on demand; serve them in a custom container (--format "
            "docker), or tune each model for a separate endpoint"
        )
    version = find_version(result.host.facts.get("torchserve")) or NEWEST
    target = replace(target or DeploymentTarget(), others=others, version=version)
    is_default = export_format is ExportFormat.PROPERTIES
    folder = run.folder / ("best" if is_default else f"best-{export_format}")
    new = folder.with_name(f".{folder.name}.new")
    claim = claim_of(run, result, archive, confirmed)
    effective = {
        each.name: _effective_settings(result, each, archive) for each in (archive, *others)
    }
    source = confirmed.verified if confirmed and confirmed.verified else result
    scaling = Scaling.of(
        float(claim["claimed_rps"]),
        LatencyCurve.of(list(latency_points(source))),
        headroom,
        load_rps,
        capacity=_request_capacity(result, effective[archive.name]),
    )
    claim |= {"format": export_format, "scaling": asdict(scaling)}
    resources = _resources(run, result)
    limits = run.spec().serving.limits
    memory = None if limits.memory_mb is None else limits.memory_mb << 20
    request = ExportRequest(
        *(new, result.config, archive, target, image, effective, scaling, resources),
        limits=Limits(limits.cpus, memory),
    )
    with run.files_locked():
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        try:
            readme = figures(run, result, archive, confirmation)
            notes, diff = _write_folder(request, claim, export_format, run, readme)
            replace_folder(new, folder)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    return ExportResult(folder, notes, diff, request.resource_name, confirmation)


def _write_folder(
    request: ExportRequest,
    claim: dict[str, Any],
    export_format: ExportFormat,
    run: Run,
    readme: Mapping[str, str],
) -> tuple[tuple[str, ...], str]:
    """Write the files to an empty folder; return the notes, and the changes to those in use."""
    folder, target = request.folder, request.target
    files = _WRITERS[export_format](request)
    diff = _write_common_files(request, files)
    notes = (*target.notes(request.config, request.archive), *files.notes, *_secret_notes(files))
    notes += _queue_note(run.spec().goal.limits.p99_s, request)
    secrets = sorted({*run.spec().in_use().secrets, *target.secrets} - target.line_secrets)
    if secrets:
        notes += (f"secrets are not exported: set {', '.join(secrets)} in the environment",)
    if export_format in _FORMATS_WITHOUT_LIMITS and (limits := _limits_text(request.limits)):
        notes += (f"this format cannot carry the trial's limits: run TorchServe within {limits}",)
    claim = read_back(request, claim | {"secrets": secrets})
    notes += _platform_notes(claim["kept"], request)
    (folder / CLAIM_FILE).write_text(json.dumps(claim, indent=2) + "\n")
    changes = _CHANGES_ITEM if target.base is not None else ""
    text = fill_template(
        "readme",
        **readme,
        use=files.use or use_of_common_files(files, target.version, request.archive),
        more=changes + "".join(f"- Note: {note}.\n" for note in notes),
    )
    (folder / "README.md").write_text(text)
    return notes, diff


def _secret_notes(files: FormatFiles) -> tuple[str, ...]:
    """Return a note on the secrets in config.properties: lines of the base stay as they are."""
    if not (names := secret_names(files.properties_text or "")):
        return ()
    paths = [path for path in (files.manifest, files.properties_path) if path]
    return (
        f"secrets are in plain text in {' and '.join(paths)}, in {', '.join(names)}: do "
        "not commit them or copy them into an image that others can read",
    )


def _queue_note(limit_s: float | None, request: ExportRequest) -> tuple[str, ...]:
    """Return a note on a queue in which requests wait longer than the limit on p99."""
    queue, scaling = request.config.job_queue_size or DEFAULT_JOB_QUEUE_SIZE, request.scaling
    if limit_s is None or scaling.capacity is None:
        return ()
    in_batches = scaling.capacity - queue
    # A shorter queue than a batch for each worker would leave workers idle.
    enough = max(math.ceil(scaling.rate_rps * limit_s) - in_batches, in_batches)
    if enough >= queue:
        return ()
    return (
        f"the last request in a full queue of {queue} is answered after "
        f"{scaling.capacity / scaling.rate_rps:.3g} s, later than the limit of {limit_s:g} s on "
        f"p99: job_queue_size={enough} would refuse it at once instead; that was not measured",
    )


def _effective_settings(result: TrialResult, model: Archive, tuned: Archive) -> dict[str, int]:
    """Return a model's settings as the trial's server described them, else the defaults."""
    server = result.server
    described = server.settings if model is tuned else server.other_models.get(model.name, {})
    defaults = {"batch_size": 1, "max_batch_delay_ms": 100, "response_timeout_s": 120}
    is_known = model is tuned and server.workers_ready
    workers = {"workers": server.workers_ready} if is_known else {}
    found = {**defaults, **workers, **archived_settings(model), **described}
    return {name: value for name, value in found.items() if name in MODEL_KEYS}


def _request_capacity(result: TrialResult, effective: Mapping[str, int]) -> int:
    """Return the number of requests that a replica holds before it refuses one."""
    batches = result.server.batch_capacity or effective["batch_size"]
    return batches + (result.config.job_queue_size or DEFAULT_JOB_QUEUE_SIZE)


def _resources(run: Run, result: TrialResult) -> Resources:
    limits = run.spec().serving.limits
    cores, peak_mb = result.host.facts.get("cores"), result.server.peak_memory_mb
    return Resources.of(limits.cpus, limits.memory_mb, cores, peak_mb)


def _limits_text(limits: Limits) -> str:
    memory = None if limits.memory_bytes is None else limits.memory_bytes >> 20
    return Resources(limits.cpus, memory, are_limits=True).text


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
    diff = redacted_diff(request.target.base, text)
    (folder / "changes.diff").write_text(diff)
    return diff
