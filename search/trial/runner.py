"""One configuration → one result: start a TorchServe, measure it, stop it."""

from __future__ import annotations

import contextlib
import errno
import json
import time
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from loadgen.errors import GeneratorLostError
from loadgen.fleet import Fleet
from loadgen.measurement import Measurement
from loadgen.rate.goal import Goal
from loadgen.rate.search import RateSearch
from search.formats import MEASUREMENTS_VERSION
from search.spec.sweep_loads import SweepLoad
from search.trial.host_info import describe_host, describe_versions
from search.trial.judging import judge_load, judge_trial, probe_record
from search.trial.load_result import LoadResult
from search.trial.observation import (
    ObservedGenerator,
    Phase,
    TrialProgress,
    Turn,
    observation_of,
)
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import (
    HostRecord,
    ServerRecord,
    TimingRecord,
    TrialResult,
    TrialState,
)
from servetune.errors import FailureKind
from serving.errors import ServerError
from serving.ignored import find_ignored_settings, find_unapplied_settings
from serving.ports import LOOPBACK
from serving.server import TorchServe
from serving.site import Site

#: A closed loop has at most this many users.
MAX_USERS = 2000
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class _Stopwatch:
    """Seconds by phase; passes each phase on as it begins."""

    def __init__(self, progress: TrialProgress):
        self._progress = progress
        self._started = self._since = time.monotonic()
        self._name: str | None = None
        self._seconds: dict[str, float] = {}

    def enter(self, phase: Phase) -> None:
        """Begin a phase, or continue it at another rate."""
        self._lap()
        self._name = phase.name
        self._progress(phase)

    def read(self) -> TimingRecord:
        """Return the seconds so far."""
        self._lap()
        return TimingRecord(
            duration_s=round(self._since - self._started, 2),
            phases_s={name: round(s, 2) for name, s in self._seconds.items()},
        )

    def _lap(self) -> None:
        now = time.monotonic()
        if self._name is not None:
            self._seconds[self._name] = self._seconds.get(self._name, 0.0) + now - self._since
        self._since = now


async def run_trial(
    request: TrialRequest,
    site: Site,
    goal: Goal,
    fleet: Fleet,
    folder: Path,
    progress: TrialProgress = lambda phase: None,
    turn: Turn | None = None,
    loads: Sequence[SweepLoad] = (),
) -> TrialResult:
    """Measure one configuration: its sustained rate, or each of these loads.

    Every failure ends in a FAILED result with its kind and cause; nothing is raised.

    Args:
        folder: receives config.properties, environment, torchserve.log, measurements.json.
        progress: receives each phase as it begins, and each window as it ends.
        turn: held while the server starts, while a window is open, and while the server stops,
            so that of several trials on a host one is active at a time.
    """
    turn = turn or contextlib.nullcontext()
    watch = _Stopwatch(progress)
    server = TorchServe(request.config, site, folder)
    windows: list[Measurement] = []
    probes: list[dict[str, Any]] = []
    load_results: list[LoadResult] = []
    try:
        # The baseline is measured as it is, with settings that TorchServe ignores.
        is_strict = request.origin is not TrialOrigin.BASELINE
        if is_strict:
            _refuse(find_ignored_settings(request.config, site.installation, site.archive))
        watch.enter(Phase("start"))
        async with _serving(server, turn, watch):
            if is_strict:
                commands = [worker.command for worker in server.processes]
                _refuse(find_unapplied_settings(request.config, commands), server.log_tail())
            await fleet.set_target(server.url)
            observed = ObservedGenerator(server, fleet, turn, progress)
            windows = observed.windows
            new_search = partial(
                RateSearch,
                goal,
                observed,
                server.batch_capacity,
                users=_users(server.batch_capacity, request.config.job_queue_size or 100),
                incumbent_rps=request.incumbent_rps,
                known_rps=request.known_rps,
                comparison_rps=request.comparison_rps,
                progress=lambda name, rate: watch.enter(Phase(name, rate)),
            )
            if loads:
                # Each repeat has separate arrivals.
                seed = goal.seed + request.number
                await _offer_loads(loads, load_results, new_search, observed, goal, seed)
            else:
                found = await new_search().find()
                probes = [probe_record(probe) for probe in found.probes]
        records = _server_record(server), _host_record(server), watch.read()
        if loads:
            result = _judge_sweep(request, load_results, *records)
        else:
            result = judge_trial(request, found, windows, *records)
    except Exception as error:
        if not isinstance(error, ServerError | GeneratorLostError):
            # A defect of servetune is one trial's failure, not the run's.
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "error.txt").write_text(traceback.format_exc())
        failure, cause, host_fault = _classify(error, folder)
        result = TrialResult.failed(
            request,
            failure,
            cause,
            host_fault,
            _server_record(server),
            _host_record(server),
            watch.read(),
        )
        # Loads that were measured before the failure are kept.
        result = replace(result, loads=tuple(load_results))
    _write_measurements(folder / "measurements.json", result, probes, windows)
    return result


async def run_trial_with_retry(*arguments: Any) -> TrialResult:
    """Run a trial, and once more if it failed through the host's fault; see `run_trial`."""
    first = await run_trial(*arguments)
    if not first.host_fault:
        return first
    again = await run_trial(*arguments)
    total_s = first.duration_s + again.duration_s
    return replace(again, timing=replace(again.timing, duration_s=total_s))


def _refuse(ignored: str | None, log: str = "") -> None:
    if ignored:
        raise ServerError(FailureKind.SETTING_IGNORED, ignored, log)


def _users(batch_capacity: int, queue_size: int) -> int:
    """Return users enough to fill every batch twice, without overflowing the queue."""
    return max(2, min(2 * batch_capacity, batch_capacity + queue_size, MAX_USERS))


async def _offer_loads(
    loads: Sequence[SweepLoad],
    results: list[LoadResult],
    new_search: Callable[[], RateSearch],
    observed: ObservedGenerator,
    goal: Goal,
    seed: int,
) -> None:
    """Offer one load after another to a warm server; append to `results`."""
    warm = new_search()
    if any(load.kind != "sustained" for load in loads):
        await warm.warm_up()
    for load in loads:
        if load.kind == "sustained":
            found = await new_search().find()
            results.append(judge_load(load, found, observed.windows))
            continue
        warm.progress("bracketing", load.rate_rps or 0.0)
        offered = load.load(goal.arrivals, goal.timeout_s, seed, warm.cycle_requests)
        measured = await observed.measure(offered)
        while measured.generator_limited and await observed.add_capacity(measured):
            measured = await observed.measure(offered)
        observation = observation_of(measured)
        server = observation.server if observation else None
        results.append(LoadResult.from_window(load, measured, server))


def _judge_sweep(
    request: TrialRequest,
    loads: Sequence[LoadResult],
    server: ServerRecord,
    host: HostRecord,
    timing: TimingRecord,
) -> TrialResult:
    if any(load.answered for load in loads):
        return TrialResult(
            number=request.number,
            origin=request.origin,
            config=request.config,
            state=TrialState.COMPLETE,
            server=server,
            host=host,
            timing=timing,
            loads=tuple(loads),
        )
    causes = [cause for load in loads for cause in (*load.errors, *load.warnings)]
    reason = ", ".join(dict.fromkeys(causes)) or "no answer at all"
    failed = TrialResult.failed(
        request,
        FailureKind.NO_RATE,
        f"no request succeeded: {reason}",
        server=server,
        host=host,
        timing=timing,
    )
    return replace(failed, loads=tuple(loads))


@contextlib.asynccontextmanager
async def _serving(server: TorchServe, turn: Turn, watch: _Stopwatch) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        async with turn:
            await stack.enter_async_context(server)
        try:
            yield
        finally:
            watch.enter(Phase("stop"))
            async with turn:
                await stack.aclose()


def _classify(error: Exception, folder: Path) -> tuple[FailureKind, str, bool]:
    """Return the kind of a failure, its cause, and whether it is the host's fault."""
    if isinstance(error, ServerError):
        log = f"\n{error.log}" if error.log else ""
        return error.kind, f"{error}{log}", error.host_fault
    if isinstance(error, GeneratorLostError):
        return FailureKind.GENERATOR_LOST, str(error), True
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        cause = f"disk full: {folder} cannot be written: {error.strerror}"
        return FailureKind.DISK_FULL, cause, True
    what = f"{type(error).__name__}: {error}"
    cause = f"internal error: {what} ({folder / 'error.txt'})"
    return FailureKind.INTERNAL_ERROR, cause, False


def _server_record(server: TorchServe) -> ServerRecord:
    workers = len(server.worker_pids)
    return ServerRecord(
        workers_ready=workers or None,
        batch_capacity=server.batch_capacity if workers else None,
        ready_s=round(server.ready_s, 2) or None,
        peak_rss_mb=server.peak_rss_bytes >> 20 or None,
        peak_gpu_mb=server.peak_gpu_bytes >> 20 or None,
        processes=server.processes,
    )


def _host_record(server: TorchServe) -> HostRecord:
    address = {} if server.site.address == LOOPBACK else {"address": server.site.address}
    versions = describe_versions(server.site.installation)
    return HostRecord(facts={**describe_host(), **address, **versions})


def _write_measurements(
    path: Path,
    result: TrialResult,
    probes: list[dict[str, Any]],
    windows: Sequence[Measurement],
) -> None:
    summaries = []
    for window in windows:
        observed = observation_of(window)
        server = asdict(observed.server) if observed and observed.server else None
        summaries.append({**window.summary(), "server": server})
    data = {
        "format_version": MEASUREMENTS_VERSION,
        "result": result.to_dict(),
        "probes": probes,
        "windows": summaries,
    }
    # If the disk is full, the driver reports it; it has the result anyway.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data, indent=1))
