"""Check exported files: their settings, the running server, the claimed rate."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loadgen.fleet import Fleet
from loadgen.local_process import local_processes
from loadgen.payloads import Payload, read_payloads
from loadgen.rate.goal import Goal
from loadgen.rate.search import RateSearch
from loadgen.rate.verdict import Verdict
from search.errors import RunError
from search.export.common import CLAIM_FILE, exported_archive
from search.formats import CLAIM_VERSION, check_version
from search.measure.endpoint import MAX_PROCESSES
from search.spec.config_file import read_config
from search.study.diff import flat
from search.study.run_folder import Run
from search.trial.host_lock import exclusive_host
from search.trial.server_tls import server_tls
from serving.archive import Archive
from serving.config import ServerConfig
from serving.deployment import Deployment
from serving.exported import START_SCRIPT, ExportedServer
from serving.installation import find_installation
from serving.ports import Ports
from serving.production import RATE_PROPERTIES
from serving.site import Site

OnPhase = Callable[[str, float], None]


@dataclass(frozen=True)
class Check:
    """The result of one comparison.

    Attributes:
        what: the setting or property.
        passed: whether it is as claimed.
        found: the actual value, and the claimed one if they differ.
    """

    what: str
    passed: bool
    found: str


@dataclass(frozen=True)
class ExportedFiles:
    """Exported files.

    Attributes:
        claim: the content of trial.json.
        archive: the model archive that they serve.
    """

    folder: Path
    claim: dict[str, Any]
    archive: Archive

    @classmethod
    def read(cls, folder: Path, model_store: Path | None) -> ExportedFiles:
        """Read a folder that `servetune export` wrote.

        Args:
            model_store: the folder of the archive, unless the archive is among the files.

        Raises:
            RunError: the folder has no valid trial.json, or one of another version.
            ArchiveError: the archive is missing.
        """
        path = folder / CLAIM_FILE
        try:
            claim = json.loads(path.read_text())
            name = claim["archive"]
            exported = exported_archive(folder, name)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{folder} contains no files exported by servetune: {CLAIM_FILE}: {error}"
            ) from None
        check_version(claim, CLAIM_VERSION, path)
        archive = Archive.read(exported if exported.exists() else (model_store or folder) / name)
        return cls(folder, claim, archive.registered_as(claim["model"]))

    @property
    def kept(self) -> ServerConfig:
        """Settings of the config.properties in use that stayed, although the trial lacked them."""
        return ServerConfig(**self.claim["kept"])

    @property
    def deployment(self) -> Deployment:
        """The configuration in the files, including the archive's own settings.

        Raises:
            ConfigError: a file is missing, or TorchServe cannot read it.
        """
        properties, environment = self.folder / "config.properties", self.folder / "environment"
        return read_config(properties, self.archive, environment)


def compare_settings(files: ExportedFiles, claimed: dict[str, Any]) -> list[Check]:
    """Compare the archive and every setting of the files with those of the trial."""
    digest = files.archive.sha256
    is_same = digest == files.claim["archive_sha256"]
    found = "as exported" if is_same else f"a different archive: SHA-256 {digest[:12]}…"
    checks = [Check("archive", is_same, found)]
    actual, kept = flat(files.deployment.config.to_dict()), flat(files.kept.to_dict())
    expected = flat(claimed)
    for path in sorted({*expected, *actual}):
        value, expected_value = actual.get(path), expected.get(path)
        if path in expected:
            is_same = value == expected_value
            found = str(value) if is_same else f"{value}; the trial had {expected_value}"
            checks.append(Check(path, is_same, found))
        elif (
            not path.startswith("properties.")
            or path.removeprefix("properties.") in RATE_PROPERTIES
        ):
            # The export noted the settings that stay from the config.properties in use.
            found = f"{value}; the trial did not set it"
            checks.append(Check(path, kept.get(path) == value, found))
    return checks


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
    spec = run.spec() if run else None
    if model_store is None and spec is not None:
        model_store = spec.model.archive.parent
    files = ExportedFiles.read(folder, model_store)
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
    if not (files.folder / START_SCRIPT).is_file():
        return [*checks, Check("running", False, "not started: compose.yaml needs a container")]
    if not all(check.passed for check in checks):
        return [*checks, Check("running", False, "not started, because a check above failed")]
    if requests is not None:
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
    else:
        site = Site(archive, find_installation())
    with exclusive_host():
        return checks + await _check_server(files, site, payloads, goal, windows, on_phase)


async def _check_server(
    files: ExportedFiles,
    site: Site,
    payloads: Sequence[Payload],
    goal: Goal,
    windows: int,
    on_phase: OnPhase,
) -> list[Check]:
    rate_rps = float(files.claim["claimed_rps"])
    config = ServerConfig(**files.claim["settings"])
    with tempfile.TemporaryDirectory(prefix="servetune-verify-") as temporary:
        on_phase("start", 0.0)
        async with ExportedServer(files.folder, config, site, Path(temporary)) as server:
            differences = server.differences()
            found = "; ".join(differences) or f"{len(server.worker_pids)} workers, as claimed"
            checks = [Check("running", not differences, found)]
            authorized = [payload.with_headers(server.headers) for payload in payloads]
            fleet = Fleet(local_processes(authorized), max_processes=MAX_PROCESSES)
            try:
                await fleet.set_target(server.url, server_tls(server))
                users = max(2, 2 * server.batch_capacity)
                search = RateSearch(goal, fleet, server.batch_capacity, users, progress=on_phase)
                probes = await server.guard(search.measure_at_rate(rate_rps, windows))
            finally:
                fleet.close()
    passed = [probe for probe in probes if probe.verdict is Verdict.PASS]
    found = f"{rate_rps:.1f} rps sustained in {len(passed)} of {windows} windows"
    if reasons := "; ".join(probe.reason for probe in probes if probe not in passed):
        found += f": {reasons}"
    return [*checks, Check("claimed rate", 2 * len(passed) > windows, found)]
