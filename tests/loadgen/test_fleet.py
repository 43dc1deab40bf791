"""Tests of fleets of load generator processes, against a server in another process."""

import asyncio
import gc
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from loadgen.client import Client
from loadgen.errors import GeneratorDefectError, GeneratorLostError
from loadgen.fleet import _LEAD_S, Fleet, _read_clock
from loadgen.local_process import LocalProcess, local_processes
from loadgen.measurement import Load, Measurement
from loadgen.payloads import Payload
from loadgen.rate.goal import Goal
from loadgen.rate.search import RateSearch
from loadgen.rate.verdict import Verdict
from loadgen.schedule import Closed, Constant
from tests.loadgen.conftest import fleet_of, late_window
from tests.loadgen.payloads.broken import broken_payload
from tests.stub import stub
from tests.virtual_time import VirtualClock, use_virtual_clock


def pids(fleet: Fleet) -> list[int]:
    process_ids = []
    for process in fleet._processes:
        assert isinstance(process, LocalProcess) and process._process.pid
        process_ids.append(process._process.pid)
    return process_ids


async def test_fleet_until_ends_a_window_and_awaits_outstanding_requests() -> None:
    async with fleet_of(2) as fleet:
        with stub(service_s=0.3, batch=100) as url:
            await fleet.set_target(url)
            measured = await fleet.measure(
                Load(Constant(50), 30.0), lambda so_far: so_far.scheduled >= 20
            )
    assert 20 <= measured.scheduled < 50 * 30
    assert measured.succeeded == measured.scheduled
    assert measured.span_s < 30


class OpenedEvent(asyncio.Event):
    """An `until` that never ends a window; set once the window is open in every process."""

    def __call__(self, so_far: Measurement) -> bool:
        self.set()
        return False


async def test_fleet_cancelled_window_leaves_no_exception() -> None:
    reports: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    async with fleet_of(2) as fleet:
        with stub() as url:
            await fleet.set_target(url)
            opened = OpenedEvent()
            window = asyncio.create_task(fleet.measure(Load(Constant(20), 30.0), opened))
            await opened.wait()
            window.cancel()
            with pytest.raises(asyncio.CancelledError):
                await window
    del window
    gc.collect()
    await asyncio.sleep(0)
    assert not reports


@asynccontextmanager
async def arrivals() -> AsyncIterator[tuple[str, dict[bytes, list[float]]]]:
    """Run a server; yield its URL, and when requests arrived by their bodies."""
    times: dict[bytes, list[float]] = {}

    async def answer(request: web.Request) -> web.Response:
        times.setdefault(await request.read(), []).append(time.perf_counter())
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    try:
        yield f"http://127.0.0.1:{port}/", times
    finally:
        await runner.cleanup()


def faketime_library() -> str:
    paths = [*Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")]
    if not paths:
        pytest.skip("libfaketime is not installed")
    return str(paths[0])


@pytest.mark.parametrize(
    "clocks_differ", [pytest.param(False, id="one clock"), pytest.param(True, id="clocks differ")]
)
async def test_fleet_processes_start_together(
    clocks_differ: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    preload = faketime_library() if clocks_differ else ""

    def spawn(index: int) -> LocalProcess:
        if index == 1 and preload:
            monkeypatch.setenv("LD_PRELOAD", preload)
            monkeypatch.setenv("FAKETIME", "+3600s")
        return local_processes([Payload(str(index).encode())])(index)

    fleet = Fleet(spawn, 2)
    try:
        async with arrivals() as (url, times):
            await fleet.set_target(url)
            readings = []
            for index, process in enumerate(fleet._processes):
                offset_s, round_trip_s = await _read_clock(process)
                sent = time.perf_counter()
                remote = await process.call("clock")
                received = time.perf_counter()
                assert (abs(offset_s) > 3000) is bool(index == 1 and preload)
                # The error of a reading is at most half its round trip.
                assert sent - round_trip_s / 2 <= remote - offset_s <= received + round_trip_s / 2
                readings.append((offset_s, round_trip_s))
            starts: list[float] = []
            common_start = fleet._common_start

            async def recorded() -> list[float]:
                starts.extend(await common_start())
                return starts

            monkeypatch.setattr(fleet, "_common_start", recorded)
            # A process that ignores its start sends long before it.
            monkeypatch.setattr("loadgen.fleet._LEAD_S", 0.5)
            measured = await fleet.measure(Load(Constant(20), 2.0))
    finally:
        fleet.close()
    assert measured.scheduled == measured.succeeded == 40
    # The shares interleave: the second process's requests are due 50 ms after the first's.
    for index, (offset_s, round_trip_s) in enumerate(readings):
        earliest = starts[index] - offset_s - round_trip_s / 2
        for number, arrived in enumerate(times[str(index).encode()]):
            assert arrived >= earliest + (2 * number + index) / 20


class FakeClock:
    """A clock that advances by the next of `delays_s` with each message, in either direction."""

    def __init__(self, delays_s: list[float]):
        self.now, self._delays_s = 100.0, iter(delays_s)

    def perf_counter(self) -> float:
        return self.now

    def travel(self) -> None:
        self.now += next(self._delays_s)


class FakeProcess:
    """A `fleet.Process` that answers at once and records its calls.

    Args:
        clock: the clock of the host.
        ahead_s: how far the process's clock is ahead of the host's.
        may_raise: whether the process may raise its priority.
    """

    def __init__(
        self, clock: FakeClock | None = None, ahead_s: float = 0.0, may_raise: bool = True
    ):
        self._clock, self._ahead_s, self._may_raise = clock, ahead_s, may_raise
        self.calls: list[str] = []

    async def call(self, method: str, *arguments: object) -> object:
        self.calls.append(method)
        if method == "clock" and self._clock is not None:
            self._clock.travel()
            remote = self._clock.now + self._ahead_s
            self._clock.travel()
            return remote
        return self._may_raise if method == "raise_priority" else None

    def end(self) -> None:
        pass


async def test_fleet_common_start_uses_the_quickest_clock_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Both directions of five readings for each process; only the third has equal delays.
    delays_s = [0.03, 0.01, 0.5, 0.0, 0.01, 0.01, 0.0, 0.4, 0.02, 0.3]
    clock = FakeClock(2 * delays_s)
    monkeypatch.setattr("loadgen.fleet.time", clock)
    processes = [FakeProcess(clock), FakeProcess(clock, ahead_s=3600.0)]
    fleet = Fleet(lambda index: processes[index], 2)
    await fleet.set_target("http://127.0.0.1/")
    first, second = await fleet._common_start()
    assert second - first == pytest.approx(3600)
    assert first == pytest.approx(clock.now + _LEAD_S + 2 * 0.02)


async def test_fleet_replaces_a_lost_process() -> None:
    async with fleet_of(2) as fleet:
        with stub(batch=8) as url:
            await fleet.set_target(url)
            opened = OpenedEvent()
            window = asyncio.ensure_future(fleet.measure(Load(Constant(50), 20.0), opened))
            await opened.wait()
            os.kill(pids(fleet)[1], signal.SIGKILL)
            with pytest.raises(GeneratorLostError):
                await window
            again = await fleet.measure(Load(Constant(50), 1.0))
    assert again.scheduled == again.succeeded == 50


async def test_fleet_gives_up_a_process_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with fleet_of(1) as fleet:
        with stub(batch=8) as url:
            await fleet.set_target(url)
            os.kill(pids(fleet)[0], signal.SIGSTOP)
            monkeypatch.setattr("loadgen.fleet._ANSWER_TIMEOUT_S", 0.5)
            with pytest.raises(GeneratorLostError, match="did not answer for"):
                await fleet.measure(Load(Constant(50), 1.0))
            monkeypatch.undo()
            assert (await fleet.measure(Load(Constant(50), 1.0))).succeeded == 50


async def test_fleet_adds_a_process_if_one_is_not_enough() -> None:
    async with fleet_of(1, max_processes=2) as fleet:
        with stub(batch=8) as url:
            await fleet.set_target(url)
            busy = replace(await fleet.measure(Load(Closed(2), 0.5)), client_cpu=0.95)
            assert await fleet.add_capacity(busy) == "2 load generator processes"
            both = await fleet.measure(Load(Constant(20), 1.0))
            assert len(pids(fleet)) == 2
    assert both.scheduled == 20


async def test_fleet_raises_the_priority_until_the_next_target() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may raise a priority")
    async with fleet_of(1, max_processes=2) as fleet:
        with stub(batch=8) as url:
            await fleet.set_target(url)
            measured = await fleet.measure(Load(Closed(2), 0.5))
            starved = replace(measured, client_cpu=0.1, client_run_delay=0.3)
            assert (
                await fleet.add_capacity(starved) == "load generator processes of a higher priority"
            )
            (pid,) = pids(fleet)
            assert os.getpriority(os.PRIO_PROCESS, pid) < 0
            assert await fleet.add_capacity(starved) == "2 load generator processes"
            assert await fleet.add_capacity(starved) is None, "nothing is left to do"
            await fleet.set_target(url)
            assert os.getpriority(os.PRIO_PROCESS, pid) == 0


@pytest.mark.parametrize(
    ("cpu", "run_delay", "may_raise", "max_processes", "steps"),
    [
        pytest.param(0.5, 0.3, True, 2, ["priority", "process"], id="starved: priority first"),
        pytest.param(0.95, 0.3, True, 2, ["process", "priority"], id="busy: a process first"),
        pytest.param(0.5, 0.01, True, 2, ["process", "priority"], id="late: a process first"),
        pytest.param(0.5, 0.3, False, 2, ["process"], id="priority not permitted: only a process"),
        pytest.param(0.95, 0.0, True, 1, ["priority"], id="greatest number of processes: priority"),
        pytest.param(0.95, 0.0, False, 1, [], id="neither is possible"),
    ],
)
async def test_fleet_add_capacity_depends_on_the_cause(
    cpu: float, run_delay: float, may_raise: bool, max_processes: int, steps: list[str]
) -> None:
    fleet = Fleet(lambda index: FakeProcess(may_raise=may_raise), 1, max_processes)
    await fleet.set_target("http://127.0.0.1/")
    limited = late_window(0.05, client_cpu=cpu, client_run_delay=run_delay)
    additions = {
        "priority": "load generator processes of a higher priority",
        "process": "2 load generator processes",
    }
    for step in steps:
        assert await fleet.add_capacity(limited) == additions[step]
    assert await fleet.add_capacity(limited) is None


async def test_fleet_reports_a_stopped_process_as_the_limit() -> None:
    async with fleet_of(1) as fleet:
        stopped = False

        def until(so_far: Measurement) -> bool:
            nonlocal stopped
            if not stopped and so_far.scheduled >= 50:
                (pid,) = pids(fleet)
                os.kill(pid, signal.SIGSTOP)
                time.sleep(0.5)  # 100 requests are due meanwhile.
                os.kill(pid, signal.SIGCONT)
                stopped = True
                return False
            return stopped and so_far.scheduled >= 200

        with stub(batch=8) as url:
            await fleet.set_target(url)
            measured = await fleet.measure(Load(Constant(200), 60.0), until)
    assert (measured.lateness.quantile(1.0) or 0) >= 0.45
    assert (measured.generator_limited or "").startswith("p99 lateness was ")


async def test_fleet_reports_a_defect_of_a_process() -> None:
    fleet = Fleet(local_processes([broken_payload()]), processes=2)
    try:
        with stub() as url:
            await fleet.set_target(url)
            with pytest.raises(GeneratorDefectError, match="TypeError") as caught:
                await fleet.measure(Load(Constant(50), 60.0))
    finally:
        fleet.close()
    assert "in accepts" in str(caught.value)


class SlowToCheck(Payload):
    """A request whose answer takes a millisecond of CPU to check, on a virtual clock."""

    clock: VirtualClock

    def accepts(self, answer: bytes) -> bool:
        self.clock.work(0.001)
        return super().accepts(answer)


@pytest.fixture
def slow_checks(monkeypatch: pytest.MonkeyPatch) -> Iterator[VirtualClock]:
    """The clock of a server that answers faster than one process can check answers."""
    SlowToCheck.clock = use_virtual_clock(monkeypatch, service_s=0.002)
    yield SlowToCheck.clock
    del SlowToCheck.clock


class InThisProcess:
    """A load generator process that is a `Client` on the event loop of the test."""

    def __init__(self) -> None:
        self._client = Client([SlowToCheck(b"{}", contains="ok")])

    async def call(self, method: str, *arguments: Any) -> Any:
        if method in ("set_target", "raise_priority"):
            return True  # These would change the priority of the tests.
        return await getattr(self._client, method)(*arguments)

    def end(self) -> None:
        pass


async def probe(max_processes: int) -> tuple[RateSearch, Verdict, int]:
    """Offer 2000 rps; return the search, its verdict, and the number of load generator processes."""
    fleet = Fleet(lambda index: InThisProcess(), 1, max_processes)
    await fleet.set_target("http://127.0.0.1/")
    search = RateSearch(Goal(window_s=2, window_limit_s=3), fleet)
    offered = await search._offer("verification", 2000)
    return search, offered.verdict, len(fleet._processes)


def test_fleet_adds_a_process_for_a_fast_server(slow_checks: VirtualClock) -> None:
    """One process cannot check 2000 answers a second; a second one is started before a verdict."""
    search, _, count = slow_checks.run(probe(max_processes=2))
    first = search._probes[0]
    assert first.verdict is Verdict.GENERATOR_LIMITED
    assert "the load generator used" in first.reason
    assert count == 2
    assert any("2 load generator processes" in warning for warning in search._windows.warnings)


def test_fleet_limit_is_not_the_servers_rate(slow_checks: VirtualClock) -> None:
    search, verdict, _ = slow_checks.run(probe(max_processes=1))
    assert verdict is Verdict.GENERATOR_LIMITED
    assert {probe.verdict for probe in search._probes} == {Verdict.GENERATOR_LIMITED}
