"""Check exported files: their settings, their schemas, the running server, rate and latency."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadgen.formatting import format_rps
from loadgen.rate.result import Probe
from loadgen.rate.verdict import Verdict
from search.errors import RunError
from search.export.exported_files import Check, ExportedFiles, compare_settings
from search.export.loaded_server import ExportedLoad, OnPhase, loaded_server, read_exported
from search.export.schema_check import check_schemas
from search.report.formatting import format_number
from search.study.run_folder import Run
from search.trial.host_lock import exclusive_host

#: The p99 latency may be this many times the claimed one, and this much more: a platform's request
#: path takes time, and the host's speed differs by 10 to 20 %.
LATENCY_TOLERANCE, LATENCY_MARGIN_S = 1.5, 0.02


async def verify(
    folder: Path,
    run: Run | None,
    requests: Path | None,
    model_store: Path | None,
    windows: int,
    on_phase: OnPhase,
) -> list[Check]:
    """Compare settings and check schemas; if all is well, start the server at the claimed rate.

    Args:
        run: the run that the files come from: its trial is compared, its requests are sent. If
            None, the settings in trial.json are compared.
        requests: requests file; overrides that of the run.
        model_store: folder of the archive; overrides that of the run.
        windows: number of windows at the claimed rate; more than half must sustain it, and no
            request may fail in any of them.
        on_phase: receives each phase's name and rate as it begins.

    Raises:
        RunError, ArchiveError, ConfigError, PayloadError: an input is missing or invalid.
        ServerError: the server does not start, or TorchServe reports other settings.
        GeneratorLostError: a load generator process was lost twice.
    """
    with tempfile.TemporaryDirectory(prefix="servetune-verify-") as temporary:
        scratch = Path(temporary)
        files, spec = read_exported(folder, run, model_store, scratch)
        checks = compare_settings(files, _claimed_settings(files, run))
        checks += check_schemas(files.platform)[0]
        if not all(check.passed for check in checks):
            return [*checks, Check("running", False, "not started, because a check above failed")]
        load = ExportedLoad.read(files, spec, requests)
        with exclusive_host():
            return checks + await _check_server(files, load, windows, on_phase, scratch)


def _claimed_settings(files: ExportedFiles, run: Run | None) -> dict[str, Any]:
    """Return the settings of the trial that the files were exported from."""
    if run is None:
        return dict(files.claim["settings"])
    number = files.claim["trial"]
    results = {result.number: result for result in run.results()}
    if files.claim["run"] != run.name or number not in results:
        raise RunError(
            f"{files.folder} was exported from trial {number} of {files.claim['run']}, which "
            f"{run.folder} does not contain"
        )
    return results[number].config.to_dict()


async def _check_server(
    files: ExportedFiles, load: ExportedLoad, windows: int, on_phase: OnPhase, scratch: Path
) -> list[Check]:
    rate_rps = float(files.claim["claimed_rps"])
    on_phase("start", 0.0)
    async with loaded_server(files, load, scratch) as loaded:
        server = loaded.server
        differences = server.differences()
        found = "; ".join(differences) or f"{len(server.worker_pids)} workers, as claimed"
        checks = [Check("running", not differences, found)]
        search = loaded.rate_search(load.goal, on_phase)
        probes = await server.guard(search.measure_at_rate(rate_rps, windows))
    passed = [probe for probe in probes if probe.verdict is Verdict.PASS]
    found = f"{format_rps(rate_rps)} sustained in {len(passed)} of {windows} windows"
    if reasons := "; ".join(probe.reason for probe in probes if probe not in passed):
        found += f": {reasons}"
    # As in a trial, no window with a failed request is outvoted by others.
    has_failed = any(
        probe.measurement.failed and probe.verdict is not Verdict.GENERATOR_LIMITED
        for probe in probes
    )
    is_sustained = 2 * len(passed) > windows and not has_failed
    checks.append(Check("claimed rate", is_sustained, found))
    if is_sustained and (claimed_s := files.claim["p99_s"]) is not None:
        checks.append(_check_latency(passed, claimed_s))
    return checks


def _check_latency(windows: Sequence[Probe], claimed_s: float) -> Check:
    """Compare the p99 latency of the best window with the claim; the others may be disturbed."""
    found_s = min(window.measurement.latency.quantile(0.99) or 0.0 for window in windows)
    limit_s = LATENCY_TOLERANCE * claimed_s + LATENCY_MARGIN_S
    is_met = found_s <= limit_s
    found = f"{format_number(found_s)} s in the best window; {format_number(claimed_s)} s claimed"
    if not is_met:
        found += f", and {format_number(limit_s)} s allowed"
    return Check("claimed p99", is_met, found)
