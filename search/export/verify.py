"""Check exported files: their settings, the running server, the claimed rate."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from loadgen.background import Background, BackgroundLoad
from loadgen.fleet import Fleet
from loadgen.local_process import local_processes
from loadgen.payloads import Payload, read_payloads
from loadgen.rate.goal import Goal
from loadgen.rate.search import RateSearch
from loadgen.rate.verdict import Verdict
from search.errors import RunError
from search.export.exported_files import Check, ExportedFiles, compare_settings
from search.export.platform_requests import platform_payloads
from search.measure.endpoint import MAX_PROCESSES
from search.study.run_folder import Run
from search.trial.host_lock import exclusive_host
from search.trial.server_tls import server_tls
from serving.config import ServerConfig
from serving.exported import ExportedServer
from serving.installation import find_installation
from serving.ports import Ports
from serving.site import Site

OnPhase = Callable[[str, float], None]


async def verify(
    folder: Path,
    run: Run | None,
    requests: Path | None,
    model_store: Path | None,
    windows: int,
    on_phase: OnPhase,
) -> list[Check]:
    """Compare the settings; if all are as claimed, start the server and offer the claimed rate.

    Args:
        run: the run that the files come from: its trial is compared, its requests are sent. If
            None, the settings in trial.json are compared.
        requests: requests file; overrides that of the run.
        model_store: folder of the archive; overrides that of the run.
        windows: number of windows at the claimed rate; more than half must sustain it.
        on_phase: receives each phase's name and rate as it begins.

    Raises:
        RunError, ArchiveError, ConfigError, PayloadError: an input is missing or invalid.
        ServerError: the server does not start, or TorchServe reports other settings.
        GeneratorLostError: a load generator process was lost twice.
    """
    with tempfile.TemporaryDirectory(prefix="servetune-verify-") as temporary:
        return await _verify(folder, run, requests, model_store, windows, on_phase, Path(temporary))


async def _verify(
    folder: Path,
    run: Run | None,
    requests: Path | None,
    model_store: Path | None,
    windows: int,
    on_phase: OnPhase,
    scratch: Path,
) -> list[Check]:
    spec = run.spec() if run else None
    stores = {}
    if model_store is None and spec is not None:
        model_store = spec.model.archive.parent
        stores = {each.name: each.path for each in spec.in_use().beside}
    files = ExportedFiles.read(folder, model_store, scratch, stores)
    claimed = files.claim["settings"]
    if run is not None:
        number = files.claim["trial"]
        results = {result.number: result for result in run.results()}
        if files.claim["run"] != run.name or number not in results:
            raise RunError(
                f"{folder} was exported from trial {number} of {files.claim['run']}, "
                f"which {run.folder} does not contain"
            )
        claimed = results[number].config.to_dict()
    checks = compare_settings(files, claimed)
    if not all(check.passed for check in checks):
        return [*checks, Check("running", False, "not started, because a check above failed")]
    if spec is None and (files.claim.get("mix") or files.claim.get("background")):
        raise RunError(
            "the rate was measured under the load of several models, which only the run has: pass "
            "--against RUN"
        )
    background: tuple[BackgroundLoad, ...] = spec.background_loads() if spec else ()
    if requests is not None:
        if files.claim.get("mix"):
            raise RunError("--requests cannot replace a mix of several models; leave it out")
        payloads = read_payloads(requests)
    elif spec is not None:
        payloads = spec.payloads()
    else:
        raise RunError("no requests to send: pass --against RUN or --requests FILE")
    if spec is not None:
        goal = spec.rate_goal()
    else:
        goal = Goal(arrivals=files.claim["arrivals"], timeout_s=files.claim["timeout_s"])
    archive = files.deployment.archive
    if spec is not None:
        # The limits and secrets of the trial; any free ports.
        site = replace(spec.site(spec.installation()), archive=archive, ports=Ports())
        site = replace(site, others=files.others)
    else:
        site = Site(archive, find_installation(), others=files.others)
    with exclusive_host():
        return checks + await _check_server(
            files, site, payloads, background, goal, windows, on_phase, scratch
        )


async def _check_server(
    files: ExportedFiles,
    site: Site,
    payloads: Sequence[Payload],
    background_loads: Sequence[BackgroundLoad],
    goal: Goal,
    windows: int,
    on_phase: OnPhase,
    scratch: Path,
) -> list[Check]:
    rate_rps = float(files.claim["claimed_rps"])
    config = ServerConfig(**files.claim["settings"])
    on_phase("start", 0.0)
    async with ExportedServer(
        files.folder, files.platform, config, site, scratch / "logs"
    ) as server:
        differences = server.differences()
        found = "; ".join(differences) or f"{len(server.worker_pids)} workers, as claimed"
        checks = [Check("running", not differences, found)]
        asked = platform_payloads(payloads, files.platform, config)
        authorized = [payload.with_headers(server.headers) for payload in asked]
        fleet = Fleet(local_processes(authorized), max_processes=MAX_PROCESSES)
        background = _background(background_loads, server.headers)
        mixed = [server.models[name].batch_capacity for name in files.claim.get("mix", ())]
        capacity = sum(mixed) or server.batch_capacity
        try:
            tls = server_tls(server)
            await fleet.set_target(server.url, tls)
            await background.set_target(server.url, tls)
            generator = background.around(fleet)
            users = max(2, 2 * capacity)
            search = RateSearch(goal, generator, capacity, users, progress=on_phase)
            probes = await server.guard(search.measure_at_rate(rate_rps, windows))
        finally:
            fleet.close()
            background.close()
    passed = [probe for probe in probes if probe.verdict is Verdict.PASS]
    found = f"{rate_rps:.1f} rps sustained in {len(passed)} of {windows} windows"
    if reasons := "; ".join(probe.reason for probe in probes if probe not in passed):
        found += f": {reasons}"
    return [*checks, Check("claimed rate", 2 * len(passed) > windows, found)]


def _background(loads: Sequence[BackgroundLoad], headers: Mapping[str, str]) -> Background:
    """Return the background with these headers in each request."""
    fleets = [
        Fleet(local_processes([payload.with_headers(headers) for payload in each.payloads]))
        for each in loads
    ]
    return Background(loads, fleets)
