"""The server of exported files under the load of the run that they come from."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from loadgen.background import Background, BackgroundLoad
from loadgen.fleet import Fleet
from loadgen.local_process import local_processes
from loadgen.measurement import LoadGenerator
from loadgen.payloads import Payload, read_payloads
from loadgen.rate.goal import Depth, Goal
from loadgen.rate.search import RateSearch
from search.errors import RunError
from search.export.exported_files import ExportedFiles
from search.export.exported_tls import exported_key_pair
from search.export.platform_requests import platform_payloads
from search.measure.endpoint import MAX_PROCESSES
from search.spec.schema import StudySpec
from search.study.run_folder import Run
from search.trial.server_tls import server_tls
from serving.configuration.config import ServerConfig
from serving.configuration.jvm import JVM_VARIABLE, without_arguments
from serving.configuration.secret_lines import secret_arguments, secret_values
from serving.exported import ExportedServer
from serving.installation import find_installation
from serving.ports import Ports
from serving.site import Site

OnPhase = Callable[[str, float], None]


def read_exported(
    folder: Path, run: Run | None, model_store: Path | None, scratch: Path
) -> tuple[ExportedFiles, StudySpec | None]:
    """Return exported files, and the specification of the run that they come from, if it is known.

    Args:
        model_store: folder of the archive; that of the run's if None.
        scratch: an existing folder for temporary files.

    Raises:
        RunError, ArchiveError: a file is missing or invalid.
    """
    spec = run.spec() if run else None
    stores = {}
    if model_store is None and spec is not None:
        model_store = spec.model.archive.parent
        stores = {each.name: each.path for each in spec.in_use().beside}
    return ExportedFiles.read(folder, model_store, scratch, stores), spec


@dataclass(frozen=True)
class ExportedLoad:
    """Where exported files are served, and what is sent to them.

    Attributes:
        site: the archive, the installation and the limits.
        payloads: the requests, in the form of the platform.
        background: the loads of the server's other models.
    """

    site: Site
    payloads: Sequence[Payload]
    background: Sequence[BackgroundLoad]
    goal: Goal

    @classmethod
    def read(
        cls, files: ExportedFiles, spec: StudySpec | None, requests: Path | None
    ) -> ExportedLoad:
        """Return the load of a run, or of a requests file.

        Raises:
            RunError, PayloadError: there are no requests, or they cannot be read.
            ConfigError: the files serve over https with a key pair that is not on this host.
        """
        if spec is None and (files.claim.get("mix") or files.claim.get("background")):
            raise RunError(
                "the rate was measured under the load of several models, which only the run has: "
                "pass --against RUN"
            )
        if requests is not None:
            if files.claim.get("mix"):
                raise RunError("--requests cannot replace a mix of several models; leave it out")
            payloads = read_payloads(requests)
        elif spec is not None:
            payloads = spec.payloads()
        else:
            raise RunError("no requests to send: pass --against RUN or --requests FILE")
        archive = files.deployment.archive
        if spec is not None:
            # The secrets of the trial; any free ports.
            site = replace(spec.site(spec.installation()), archive=archive, ports=Ports())
            goal = spec.rate_goal()
        else:
            site = Site(archive, find_installation())
            goal = Goal(arrivals=files.claim["arrivals"], timeout_s=files.claim["timeout_s"])
        key_pair = exported_key_pair(files, site.key_pair)
        secrets = {**site.secrets, **(key_pair.variables() if key_pair else {})}
        secrets = missing_secrets(secrets, files.platform.properties or "")
        site = replace(
            site, others=files.others, limits=files.limits, key_pair=key_pair, secrets=secrets
        )
        config = ServerConfig(**files.claim["settings"])
        return cls(
            site,
            platform_payloads(payloads, files.platform, config),
            tuple(
                replace(each, payloads=platform_payloads(each.payloads, files.platform, config))
                for each in (spec.background_loads() if spec else ())
            ),
            goal,
        )


def missing_secrets(secrets: Mapping[str, str], properties: str) -> dict[str, str]:
    """Return the secrets that are not in the lines of a config.properties."""
    in_lines = secret_values(properties)
    missing = {name: text for name, text in secrets.items() if name not in in_lines}
    arguments = without_arguments(secrets.get(JVM_VARIABLE, ""), secret_arguments(properties))
    return {**missing, JVM_VARIABLE: arguments} if arguments else missing


@dataclass(frozen=True)
class LoadedServer:
    """A running server and its load generator.

    Attributes:
        capacity: requests that the server takes in one round of batches.
    """

    server: ExportedServer
    generator: LoadGenerator
    capacity: int

    def rate_search(self, goal: Goal, on_phase: OnPhase, depth: Depth = Depth.FULL) -> RateSearch:
        """Return a search for the rate of this server."""
        return rate_search(self.generator, self.capacity, goal, on_phase, depth)


def rate_search(
    generator: LoadGenerator, capacity: int, goal: Goal, on_phase: OnPhase, depth: Depth
) -> RateSearch:
    """Return a search whose closed loop fills every batch twice; see `LoadedServer.capacity`."""
    users = max(2, 2 * capacity)
    return RateSearch(goal, generator, capacity, users, depth=depth, progress=on_phase)


@contextlib.asynccontextmanager
async def loaded_server(
    files: ExportedFiles, load: ExportedLoad, scratch: Path
) -> AsyncIterator[LoadedServer]:
    """Start exported files as their platform does, with a load generator beside them.

    Raises:
        ServerError: the server does not start, or TorchServe reports other settings.
    """
    config = ServerConfig(**files.claim["settings"])
    async with ExportedServer(
        files.folder, files.platform, config, load.site, scratch / "logs"
    ) as server:
        authorized = [payload.with_headers(server.headers) for payload in load.payloads]
        fleet = Fleet(local_processes(authorized), max_processes=MAX_PROCESSES)
        background = _background(load.background, server.headers)
        mixed = [server.models[name].batch_capacity for name in files.claim.get("mix", ())]
        try:
            tls = server_tls(server)
            await fleet.set_target(server.url, tls)
            await background.set_target(server.url, tls)
            capacity = sum(mixed) or server.batch_capacity
            yield LoadedServer(server, background.around(fleet), capacity)
        finally:
            fleet.close()
            background.close()


def _background(loads: Sequence[BackgroundLoad], headers: Mapping[str, str]) -> Background:
    """Return the background with these headers in each request."""
    fleets = [
        Fleet(local_processes([payload.with_headers(headers) for payload in each.payloads]))
        for each in loads
    ]
    return Background(loads, fleets)
