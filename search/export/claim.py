"""What exported files claim: the trial's settings and rate, and what the files add to them."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from search.answer.confirmed import Confirmed
from search.export.common import CLAIM_FILE, ExportRequest, exported_archive
from search.export.exported_files import ExportedFiles, added_settings, compare_settings
from search.formats import CLAIM_VERSION
from search.study.run_folder import Run
from search.trial.result import TrialResult
from serving.archive import Archive
from serving.errors import ConfigError


def claim_of(
    run: Run, result: TrialResult, archive: Archive, confirmed: Confirmed | None
) -> dict[str, Any]:
    """Return the claimed settings and rate as plain JSON data."""
    load, limits = run.spec().load, run.spec().serving.limits
    claimed_rps, claimed_by = claimed_rate(result, confirmed)
    return {
        "format_version": CLAIM_VERSION,
        "run": run.name,
        "trial": result.number,
        "model": archive.name,
        "version": archive.version,
        "archive": archive.path.name,
        "settings": result.config.to_dict(),
        "claimed_rps": claimed_rps,
        "claimed_by": claimed_by,
        "batch_capacity": result.server.batch_capacity or 1,
        "expected_rps": _expected_estimate(result, confirmed),
        "p99_s": _claimed_p99_s(result, confirmed),
        "arrivals": load.arrivals,
        "timeout_s": load.timeout_s,
        "limits": {"cpus": limits.cpus, "memory_mb": limits.memory_mb},
        "mix": dict(load.mix),
        "background": {each.model: each.rate_rps for each in load.background},
    }


def claimed_rate(result: TrialResult, confirmed: Confirmed | None) -> tuple[float | None, str]:
    """Return the rate that exported files claim, requests/s, and where it comes from."""
    if confirmed is not None and (prediction := confirmed.sustained):
        return prediction.low, "the confirmation: the lower end of the 95 % prediction interval"
    return result.sustained_rps, "the search alone, which is on average too high"


def _claimed_p99_s(result: TrialResult, confirmed: Confirmed | None) -> float | None:
    """Return the p99 latency at a rate that is not below the claimed one, seconds."""
    verified = confirmed.verified if confirmed else None
    return (verified or result).p99_s


def _expected_estimate(result: TrialResult, confirmed: Confirmed | None) -> float | None:
    """Return the rate that one more closed loop is expected to show, requests/s."""
    if confirmed is not None and confirmed.sustained and confirmed.closed_loop:
        return confirmed.closed_loop.mean
    return result.estimate.rps if result.estimate else result.sustained_rps


def _model_claim(folder: Path, archive: Archive) -> dict[str, str]:
    """Return the archive of another model, as exported if it is among the files."""
    exported = exported_archive(folder, archive.path.name)
    digest = (Archive.read(exported) if exported.exists() else archive).sha256
    return {"version": archive.version, "archive": archive.path.name, "archive_sha256": digest}


def read_back(request: ExportRequest, claim: dict[str, Any]) -> dict[str, Any]:
    """Return the claim with the digests of the archives, and with what the files add to the trial.

    Raises:
        ConfigError: the files do not carry a setting of the trial, or TorchServe would fail
            requests with them.
    """
    folder, others = request.folder, request.target.others
    claim = {**claim, "models": {other.name: _model_claim(folder, other) for other in others}}
    (folder / CLAIM_FILE).write_text(json.dumps(claim))
    with tempfile.TemporaryDirectory(prefix="servetune-export-") as scratch:
        stores = {other.name: other.path for other in others}
        store = request.archive.path.parent
        files = ExportedFiles.read(folder, store, Path(scratch), stores)
        config = files.deployment.config
        kept = added_settings(config, request.config).to_dict()
        claim |= {"archive_sha256": files.archive_sha256, "kept": kept}
        checks = compare_settings(replace(files, claim=claim), claim["settings"])
    if problems := config.batch_problems():
        raise ConfigError(
            f"{'; '.join(problems)}; tune with this envelope (properties.service_envelope), or "
            "export a trial with batch_size 1"
        )
    if lost := [check for check in checks if not check.passed]:
        found = "; ".join(f"{check.what}: {check.found}" for check in lost)
        raise ConfigError(
            f"the format {claim['format']} does not carry the trial's settings: {found}"
        )
    return claim
