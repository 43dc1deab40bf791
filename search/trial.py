"""One configuration → one result: a TorchServe started, measured, stopped."""

from __future__ import annotations

import contextlib
import errno
import json
import time
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from loadgen.fleet import Fleet
from loadgen.measurement import Generator, GeneratorLost, Load, Measurement, Until
from loadgen.rate.goal import Goal
from loadgen.rate.search import Search
from search.host import CpuTimes, describe_host, describe_versions
from search.loads import LoadResult, Offered, result_of
from search.result import (
    Kind,
    Seen,
    State,
    Task,
    TrialResult,
    Window,
    probe_summary,
    summarise,
    sustained_result,
)
from serving.errors import ServerError
from serving.ignored import ignored_after, ignored_before
from serving.ports import LOOPBACK
from serving.server import TorchServe
from serving.site import Site

#: An `asyncio.Lock`, or nothing at all.
Turn = AbstractAsyncContextManager[None, bool | None]
MAX_USERS = 2000
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Phase:
    """What a trial is doing: a phase, and the rate that is offered in it (0 where none is)."""

    name: str
    rate_rps: float = 0.0


#: Told each phase as it begins, and each window as it ends.
Progress = Callable[[Phase | Seen], None]


class Observed:
    """A generator aimed at a server: cut short when the server fails, its own metrics beside.

    Args:
        turn: held while a window is open.
        progress: is told what each window came to.
    """

    def __init__(self, server: TorchServe, generator: Generator, turn: Turn, progress: Progress):
        self._server, self._generator, self._turn = server, generator, turn
        self._progress = progress
        self.windows: list[Window] = []

    async def measure(self, load: Load, until: Until | None = None) -> Measurement:
        """Offer `load`; raises ServerError where the server fails meanwhile."""
        async with self._turn:
            before, started = await self._server.counters(), time.monotonic()
            cpu, server_s = CpuTimes.now(), self._server.cpu_s()
            measured = await self._server.guard(self._generator.measure(load, until))
            ours_s = self._server.cpu_s() - server_s + measured.client_cpu_s
            shares = CpuTimes.now().shares_since(cpu, ours_s)
            after, elapsed_s = await self._server.counters(), time.monotonic() - started
        told = after.since(before, elapsed_s) if before and after else None
        self.windows.append(Window(measured, told, **shares))
        p99_s = measured.latency.quantile(0.99)
        rates = (measured.load.rate_rps, round(measured.goodput_rps, 3))
        self._progress(Seen(*rates, measured.failed, p99_s))
        return measured

    async def relieve(self, limited: Measurement) -> str | None:
        """Do something about a generator that was the limit."""
        return await self._generator.relieve(limited)


class _Stopwatch:
    """Seconds by phase; passes each phase on as it begins."""

    def __init__(self, progress: Progress):
        self._progress = progress
        self._started = self._since = time.monotonic()
        self._name: str | None = None
        self._seconds: dict[str, float] = {}

    def enter(self, phase: Phase) -> None:
        """A phase begins, or goes on at another rate."""
        self._lap()
        self._name = phase.name
        self._progress(phase)

    def read(self) -> dict[str, Any]:
        """The seconds so far: by phase, and all of them."""
        self._lap()
        return {
            "phases_s": {name: round(s, 2) for name, s in self._seconds.items()},
            "duration_s": round(self._since - self._started, 2),
        }

    def _lap(self) -> None:
        now = time.monotonic()
        if self._name is not None:
            self._seconds[self._name] = self._seconds.get(self._name, 0.0) + now - self._since
        self._since = now


async def run_trial(
    task: Task,
    site: Site,
    goal: Goal,
    fleet: Fleet,
    folder: Path,
    progress: Progress = lambda phase: None,
    turn: Turn | None = None,
    loads: Sequence[Offered] = (),
) -> TrialResult:
    """Measure one configuration: its sustained rate, or what comes of these loads.

    Everything that can go wrong with it ends in a FAILED result, with its cause.

    Args:
        folder: receives config.properties, environment, torchserve.log, measurements.json.
        progress: is told each phase as it begins, each window as it ends.
        turn: held while the server starts, while a window is open, and while the server stops:
            where several trials share a host, one of them is at work at a time.
    """
    turn = turn or contextlib.nullcontext()
    watch = _Stopwatch(progress)
    server = TorchServe(task.config, site, folder)
    observed = None
    queue_size = task.config.job_queue_size or 100
    told: list[LoadResult] = []
    try:
        # What runs today is measured as it is.
        strict = task.kind is not Kind.BASELINE
        if strict and (ignored := ignored_before(task.config, site.installation, site.archive)):
            raise ServerError("setting ignored", ignored)
        watch.enter(Phase("start"))
        async with _serving(server, turn, watch):
            commands = [worker.command for worker in server.workers]
            if strict and (ignored := ignored_after(task.config, commands)):
                raise ServerError("setting ignored", ignored, server.log_tail())
            await fleet.aim(server.url)
            observed = Observed(server, fleet, turn, progress)
            batch_requests = server.batch_capacity
            search = partial(
                Search,
                goal,
                observed,
                batch_requests,
                users=max(2, min(2 * batch_requests, batch_requests + queue_size, MAX_USERS)),
                incumbent_rps=task.incumbent_rps,
                known_rps=task.known_rps,
                common_rps=task.common_rps,
                progress=lambda name, rate: watch.enter(Phase(name, rate)),
            )
            if loads:
                # Each repeat has arrivals of its own.
                seed = goal.seed + task.number
                await _offer(loads, told, search, observed, goal, seed)
            else:
                found = await search().find()
        if loads:
            result, probes = _swept(task, told, _measured(server, watch)), []
        else:
            result = summarise(task, found, observed.windows, **_measured(server, watch))
            probes = [probe_summary(probe) for probe in found.probes]
    except (ServerError, GeneratorLost) as error:
        result, probes = _failed(task, error, folder, _measured(server, watch)), []
    except Exception as error:
        # A defect of servetune's own is one trial's failure, not the run's.
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "error.txt").write_text(traceback.format_exc())
        result, probes = _failed(task, error, folder, _measured(server, watch)), []
    if told and not result.loads:
        result = replace(result, loads=tuple(told))  # What was measured before it failed.
    _write(folder / "measurements.json", result, probes, observed)
    return result


async def _offer(
    loads: Sequence[Offered],
    told: list[LoadResult],
    new_search: Callable[[], Search],
    observed: Observed,
    goal: Goal,
    seed: int,
) -> None:
    """One load after another on a server that is warm; what came of each is added to `told`."""
    warm = new_search()
    if any(offered.kind != "sustained" for offered in loads):
        await warm.warm_up()
    for offered in loads:
        if offered.kind == "sustained":
            found = await new_search().find()
            told.append(sustained_result(offered, found, observed.windows))
            continue
        warm.progress("narrowing", offered.rate_rps or 0.0)
        load = offered.load(goal.arrivals, goal.timeout_s, seed, warm.cycle_requests)
        measured = await observed.measure(load)
        while measured.generator_limited and await observed.relieve(measured):
            measured = await observed.measure(load)
        told.append(result_of(offered, measured, observed.windows[-1].server))


def _swept(task: Task, told: Sequence[LoadResult], measured: dict[str, Any]) -> TrialResult:
    served = any(load.answered for load in told)
    causes = [cause for load in told for cause in (*load.errors, *load.doubts)]
    state = State.COMPLETE if served else State.FAILED
    why = ", ".join(dict.fromkeys(causes)) or "no answer at all"
    cause = "" if served else f"no request succeeded: {why}"
    return TrialResult(
        task.number, task.kind, task.config, state, cause=cause, loads=tuple(told), **measured
    )


async def run_twice(*arguments: Any) -> TrialResult:
    """`run_trial`, once more where it was the host's fault."""
    first = await run_trial(*arguments)
    if not first.host_fault:
        return first
    again = await run_trial(*arguments)
    return replace(again, duration_s=first.duration_s + again.duration_s)


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


def _failed(task: Task, error: Exception, folder: Path, measured: dict[str, Any]) -> TrialResult:
    if isinstance(error, ServerError):
        log = f"\n{error.log}" if error.log else ""
        cause, host_fault = f"{error}{log}", error.host_fault
    elif isinstance(error, GeneratorLost):
        cause, host_fault = f"load process lost: {error}", True
    elif isinstance(error, OSError) and error.errno in _FULL:
        cause, host_fault = f"disk full: {folder} cannot be written: {error.strerror}", True
    else:
        what = f"{type(error).__name__}: {error}"
        cause, host_fault = f"internal error: {what} ({folder / 'error.txt'})", False
    return TrialResult(
        task.number,
        task.kind,
        task.config,
        State.FAILED,
        cause=cause,
        host_fault=host_fault,
        **measured,
    )


def _measured(server: TorchServe, watch: _Stopwatch) -> dict[str, Any]:
    workers, address = len(server.worker_pids), {}
    if server.site.address != LOOPBACK:
        address = {"address": server.site.address}
    return {
        "workers_ready": workers or None,
        "workers": tuple(vars(worker) for worker in server.workers),
        "batch_capacity": server.batch_capacity if workers else None,
        "ready_s": round(server.ready_s, 2) or None,
        "peak_rss_mb": server.peak_rss_bytes >> 20 or None,
        "peak_gpu_mb": server.peak_gpu_bytes >> 20 or None,
        **watch.read(),
        "host": {**describe_host(), **address, **describe_versions(server.site.installation)},
    }


def _write(
    path: Path, result: TrialResult, probes: list[dict[str, Any]], observed: Observed | None
) -> None:
    windows = [
        {**window.measured.summary(), "server": vars(window.server) if window.server else None}
        for window in (observed.windows if observed else ())
    ]
    text = json.dumps({"result": result.to_dict(), "probes": probes, "windows": windows}, indent=1)
    # On a full disk the driver says so, which has the result anyhow.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
