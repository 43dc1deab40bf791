"""Run a trial: start TorchServe with a configuration, measure it, stop it."""

from __future__ import annotations

import contextlib
import errno
import json
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from loadgen.background import Background
from loadgen.errors import GeneratorDefectError, GeneratorLostError
from loadgen.fleet import Fleet
from loadgen.measurement import Measurement
from loadgen.rate.goal import Goal
from loadgen.rate.search import RateSearch
from search.atomic_files import write_atomically
from search.formats import MEASUREMENTS_VERSION
from search.spec.sweep_loads import SweepLoad
from search.trial.host_info import describe_host, describe_versions
from search.trial.judging import judge_load, judge_sweep, judge_trial, probe_record
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
)
from search.trial.server_probe import ServerProbeRecord
from search.trial.server_prober import ServerProber, may_probe, probes_s
from search.trial.server_tls import server_tls
from search.trial.users import closed_loop_users
from servetune.errors import FailureKind
from serving.configuration.defaults import DEFAULT_JOB_QUEUE_SIZE
from serving.configuration.ignored import find_ignored_settings, find_unapplied_settings
from serving.errors import ServerError
from serving.ports import LOOPBACK
from serving.server import TorchServe
from serving.site import Site

#: Usual duration of a server's stop, seconds.
_STOP_S = 5.0
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class _Stopwatch:
    """Measures the duration of each phase, and reports each phase when it begins."""

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

    def announce(self, left_s: float) -> None:
        """Report the expected duration of the rest of the trial, seconds."""
        left_s += _STOP_S
        self._progress(Phase(self._name or "start", 0.0, round(left_s)))

    def read(self) -> TimingRecord:
        """Return the durations so far."""
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
    mix: Sequence[str] = (),
    background: Background | None = None,
) -> TrialResult:
    """Measure the sustained rate of a configuration, or its behaviour under each of `loads`.

    A failure is not raised; it results in a FAILED result with its kind and cause.

    Args:
        folder: folder for config.properties, environment, torchserve.log and measurements.json.
        progress: receives each phase when it begins, and each window when it ends.
        turn: held while the server starts, while a window is open, and while the server stops,
            so that only one of several trials on a host is active at a time.
        mix: models that the requests of `fleet` are for; only the tuned one if empty.
        background: loads that other models get in every window.
    """
    background = background or Background()
    turn = turn or contextlib.nullcontext()
    watch = _Stopwatch(progress)
    server = TorchServe(request.config, site, folder)
    windows: list[Measurement] = []
    probes: list[dict[str, Any]] = []
    load_results: list[LoadResult] = []
    server_record: ServerRecord | None = None
    server_probes: tuple[ServerProbeRecord, ...] = ()
    niceness: list[str] = []
    try:
        # A configuration in use is measured as it is, even if TorchServe ignores some settings.
        in_use = request.config if request.origin is TrialOrigin.BASELINE else site.in_use
        chosen = dict(request.config.properties.items() - in_use.properties.items())
        _refuse(find_ignored_settings(chosen, site.installation, site.archive))
        watch.enter(Phase("start"))
        async with _serving(server, turn, watch):
            niceness = _niceness_warnings(server.worker_pids)
            commands = [worker.command for worker in server.processes]
            _refuse(find_unapplied_settings(chosen, commands), server.log_tail())
            tls = server_tls(server)
            await fleet.set_target(server.url, tls)
            await background.set_target(server.url, tls)
            generator = background.around(fleet)
            observed = ObservedGenerator(server, generator, turn, progress, mix)
            windows = observed.windows
            measured_models = mix or (site.archive.name,)
            capacities = [server.models[name].batch_capacity for name in measured_models]
            new_search = partial(
                RateSearch,
                goal,
                observed,
                sum(capacities),
                users=closed_loop_users(
                    capacities, request.config.job_queue_size or DEFAULT_JOB_QUEUE_SIZE
                ),
                incumbent_rps=request.incumbent_rps,
                known_share=request.known_share,
                comparison_rps=request.comparison_rps,
                depth=request.depth,
                latency_curve=request.latency_curve,
                curve_from_rps=request.curve_from_rps,
                announce=lambda left_s: watch.announce(left_s + probes_s(request.server_probes)),
                progress=lambda name, rate: watch.enter(Phase(name, rate)),
            )
            if loads:
                # The repeats of a point differ in their arrival times.
                seed = goal.seed + request.number
                await _offer_loads(loads, load_results, new_search, observed, goal, seed)
            else:
                found = await new_search().find()
                target = [found.target] if found.target else []
                probes = [probe_record(probe) for probe in (*found.probes, *target)]
                # Probes change the server: they come last, and the trial's figures are fixed.
                server_record = _server_record(server)
                if request.server_probes and may_probe(server, found):
                    watch.enter(Phase("probes"))
                    prober = ServerProber(server, generator, turn, goal, found.capacity_rps)
                    server_probes = await prober.run(request.server_probes)
        record = server_record or _server_record(server)
        records = record, _host_record(server), watch.read()
        if loads:
            result = judge_sweep(request, load_results, *records)
        else:
            result = judge_trial(request, found, windows, *records)
            result = replace(result, server_probes=server_probes)
    except Exception as error:
        if not isinstance(error, ServerError | GeneratorLostError):
            # A defect of servetune fails the trial, not the whole run.
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
    warnings = (*result.warnings, *niceness, *server.enforcement.warnings)
    result = replace(result, warnings=warnings)
    _write_measurements(folder / "measurements.json", result, probes, windows)
    return result


async def run_trial_with_retry(*arguments: Any) -> TrialResult:
    """Run a trial; repeat it once if the host caused its failure; see `run_trial`."""
    first = await run_trial(*arguments)
    if not first.host_fault:
        return first
    second = await run_trial(*arguments)
    total_s = first.duration_s + second.duration_s
    return replace(second, timing=replace(second.timing, duration_s=total_s))


def _niceness_warnings(pids: Iterable[int]) -> list[str]:
    """Return a warning if a worker runs at another niceness than in production."""
    found = set()
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            found.add(psutil.Process(pid).nice())
    if not found - {0}:
        return []
    values = ", ".join(str(value) for value in sorted(found))
    return [
        f"the workers ran at niceness {values} instead of 0: beside busy processes they are "
        "slower than in production; start servetune, or the Ray node of this host, at niceness 0"
    ]


def _refuse(problem: str | None, log: str = "") -> None:
    if problem:
        raise ServerError(FailureKind.SETTING_IGNORED, problem, log)


async def _offer_loads(
    loads: Sequence[SweepLoad],
    results: list[LoadResult],
    new_search: Callable[[], RateSearch],
    observed: ObservedGenerator,
    goal: Goal,
    seed: int,
) -> None:
    """Offer the loads one after another, and append to `results`; warm the server up first."""
    warm_search = new_search()
    if any(load.kind != "sustained" for load in loads):
        await warm_search.warm_up()
    for load in loads:
        if load.kind == "sustained":
            found = await new_search().find()
            results.append(judge_load(load, found, observed.windows))
            continue
        warm_search.progress("load", load.rate_rps or 0.0)
        offered = load.load(goal.arrivals, goal.timeout_s, seed, warm_search.cycle_requests)
        measured = await observed.measure(offered)
        while measured.generator_limited and await observed.add_capacity(measured):
            measured = await observed.measure(offered)
        observation = observation_of(measured)
        server = observation.server if observation else None
        results.append(LoadResult.from_window(load, measured, server))


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
    """Return the kind of a failure, its cause, and whether the host caused it."""
    if isinstance(error, ServerError):
        log = f"\n{error.log}" if error.log else ""
        return error.kind, f"{error}{log}", error.host_fault
    if isinstance(error, GeneratorLostError):
        return FailureKind.GENERATOR_LOST, str(error), True
    if isinstance(error, GeneratorDefectError):
        return FailureKind.INTERNAL_ERROR, f"{error.summary}\n({folder / 'error.txt'})", False
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        cause = f"disk full: {folder} cannot be written: {error.strerror}"
        return FailureKind.DISK_FULL, cause, True
    cause = f"internal error: {type(error).__name__}: {error} ({folder / 'error.txt'})"
    return FailureKind.INTERNAL_ERROR, cause, False


def _server_record(server: TorchServe) -> ServerRecord:
    model = server.model
    return ServerRecord(
        settings=model.settings if model else {},
        other_models={
            name: other.settings for name, other in server.models.items() if other is not model
        },
        workers_ready=len(model.worker_pids) or None if model else None,
        batch_capacity=model.batch_capacity if model else None,
        ready_s=round(server.ready_s, 2) or None,
        peak_memory_mb=server.peak_memory_bytes >> 20 or None,
        peak_gpu_mb=server.peak_gpu_bytes >> 20 or None,
        processes=server.processes,
    )


def _host_record(server: TorchServe) -> HostRecord:
    address = {} if server.site.address == LOOPBACK else {"address": server.site.address}
    versions = describe_versions(server.site.installation)
    host, limits = describe_host(), server.site.limits
    host["cores"] = limits.cores(host["cores"])
    if server.enforcement.method:
        host["limits"] = server.enforcement.method
    return HostRecord(facts={**host, **address, **versions})


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
    # The caller has the result anyway, and the driver reports a full disk.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(data, indent=1))
