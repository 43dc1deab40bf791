"""Exported files against what they claim: their settings, the running server, the rate."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from loadgen.fleet import Fleet
from loadgen.local_process import local_processes
from loadgen.payloads import Payload, read_payloads
from loadgen.rate.goal import Goal
from loadgen.rate.search import RateSearch
from loadgen.rate.verdict import Verdict
from search.errors import RunError
from search.export.files import CLAIM, ExportFormat
from search.measure.endpoint import MAX_PROCESSES
from search.study.diff import flat
from search.study.run_folder import Run
from search.trial.host_lock import exclusive_host
from serving.archive import MANIFEST, Archive
from serving.config import ServerConfig, escaped, parse_environment
from serving.exported import START, ExportedServer
from serving.installation import Installation, find_installation
from serving.production import IN_ARCHIVE, MATTERS
from serving.site import Site

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Check:
    """One thing that was compared: what, whether it is as claimed, and what was seen."""

    what: str
    passed: bool
    told: str


@dataclass(frozen=True)
class Files:
    """Exported files: where they are, what they claim, and the archive that they serve."""

    folder: Path
    claim: dict[str, Any]
    archive: Archive

    @classmethod
    def read(cls, folder: Path, model_store: Path | None) -> Files:
        """Read what `servetune export` wrote.

        Args:
            model_store: where the archive is, unless it lies among the files.

        Raises:
            RunError: these are no such files.
            ArchiveError: the archive is not there.
        """
        try:
            claim = json.loads((folder / CLAIM).read_text())
            inside = folder / claim["archive"]
            archive = inside if inside.is_file() else (model_store or folder) / claim["archive"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{folder} holds no files that servetune exported: {CLAIM}: {error}"
            ) from None
        return cls(folder, claim, Archive.read(archive))

    @property
    def kept(self) -> ServerConfig:
        """What of the file in use stayed, although no trial had it."""
        lines = {key: escaped(text) for key, text in self.claim["kept"].items()}
        text = "".join(f"{key}={value}\n" for key, value in lines.items())
        return ServerConfig.parse(text, self.archive)[0]

    @property
    def config(self) -> ServerConfig:
        """The configuration that the files hold, the archive's own settings among them.

        Raises:
            ConfigError: a file of them is not what TorchServe reads.
            RunError: one is missing.
        """
        try:
            text = (self.folder / "config.properties").read_text("latin-1")
            environment = parse_environment((self.folder / "environment").read_text())
        except OSError as error:
            raise RunError(f"{self.folder} is not whole: {error}") from None
        found, _ = ServerConfig.parse(text, self.archive, environment)
        return found


def compare_settings(files: Files, claimed: dict[str, Any]) -> list[Check]:
    """The archive, and every setting of the files, against the trial's."""
    digest = files.archive.sha256
    is_same = digest == files.claim["archive_sha256"]
    told = "as it was exported" if is_same else f"another one: SHA-256 {digest[:12]}…"
    checks = [Check("archive", is_same, told)]
    held, kept = flat(files.config.to_dict()), flat(files.kept.to_dict())
    inside = _inside(files.archive) if files.claim["format"] == ExportFormat.MODEL_CONFIG else {}
    for name, keys in IN_ARCHIVE.items():
        if {inside.get(key) for key in keys} != {None}:
            held[name] = inside[keys[0]]
    wanted = flat(claimed)
    for path in sorted({*wanted, *held}):
        ours, theirs = held.get(path), wanted.get(path)
        if path in wanted:
            told = str(ours) if ours == theirs else f"{ours}; the trial had {theirs}"
            checks.append(Check(path, ours == theirs, told))
        elif path.removeprefix("properties.") in MATTERS or not path.startswith("properties."):
            # What was in use, and stays, was said when the files were written.
            told = f"{ours}; the trial did not set it"
            checks.append(Check(path, kept.get(path) == ours, told))
    return checks


def _inside(archive: Archive) -> dict[str, Any]:
    with zipfile.ZipFile(archive.path) as mar:
        name = json.loads(mar.read(MANIFEST))["model"].get("configFile")
        found: dict[str, Any] = (yaml.safe_load(mar.read(name)) or {}) if name else {}
    return found


async def verify(
    folder: Path,
    run: Run | None,
    requests: Path | None,
    model_store: Path | None,
    windows: int,
    progress: Progress,
) -> list[Check]:
    """Compare the files' settings; where all are right, start them and offer the claimed rate.

    Args:
        run: that the files are of: its trial says what is right, its specification what is asked.
        requests, model_store: instead of the run's.
        windows: at the claimed rate; most of them must hold it.

    Raises:
        RunError, ArchiveError, ConfigError, PayloadError: what is needed is not there.
        ServerError: the files do not start, or TorchServe reports other settings.
        GeneratorLostError: a load process was lost twice.
    """
    spec = run.spec() if run else None
    if model_store is None and spec is not None:
        model_store = spec.model.archive.parent
    files = Files.read(folder, model_store)
    claimed = files.claim["settings"]
    if run is not None:
        number = files.claim["trial"]
        known = {result.number: result for result in run.results()}
        if files.claim["run"] != run.name or number not in known:
            raise RunError(f"{folder} is of the run {files.claim['run']}, not of {run.folder}")
        claimed = known[number].config.to_dict()
    checks = compare_settings(files, claimed)
    if not (files.folder / START).is_file():
        return [*checks, Check("running", False, "not started: compose.yaml needs a container")]
    if not all(check.passed for check in checks):
        return [*checks, Check("running", False, "not started, since something above differs")]
    if requests is not None:
        payloads = read_payloads(requests)
    elif spec is not None:
        payloads = spec.payloads()
    else:
        raise RunError("what is asked must be told: name the run, or a requests file")
    goal = Goal(arrivals=files.claim["arrivals"], timeout_s=files.claim["timeout_s"])
    goal = spec.rate_goal() if spec else goal
    installation = spec.installation() if spec else find_installation()
    with exclusive_host():
        return checks + await _running(files, installation, payloads, goal, windows, progress)


async def _running(
    files: Files,
    installation: Installation,
    payloads: Sequence[Payload],
    goal: Goal,
    windows: int,
    progress: Progress,
) -> list[Check]:
    rate = float(files.claim["claimed_rps"])
    config = ServerConfig(**files.claim["settings"])
    with tempfile.TemporaryDirectory(prefix="servetune-verify-") as temporary:
        progress("start", 0.0)
        site = Site(files.archive, installation)
        async with ExportedServer(files.folder, config, site, Path(temporary)) as server:
            differing = server.differences()
            told = (
                "; ".join(differing) or f"{len(server.worker_pids)} workers, described as claimed"
            )
            checks = [Check("running", not differing, told)]
            signed = [replace(p, headers={**p.headers, **server.headers}) for p in payloads]
            fleet = Fleet(local_processes(signed), most=MAX_PROCESSES)
            try:
                await fleet.set_target(server.url)
                users = max(2, 2 * server.batch_capacity)
                search = RateSearch(goal, fleet, server.batch_capacity, users, progress=progress)
                probes = await server.guard(search.measure_at_rate(rate, windows))
            finally:
                fleet.close()
    passed = [probe for probe in probes if probe.verdict is Verdict.PASS]
    told = f"{rate:.1f} rps held in {len(passed)} of {windows} windows"
    reasons = "; ".join(probe.reason for probe in probes if probe not in passed)
    is_held = 2 * len(passed) > windows
    checks.append(Check("claimed rate", is_held, f"{told}: {reasons}" if reasons else told))
    return checks
