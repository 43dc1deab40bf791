"""Load processes on this host, against a server in another process."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
from aiohttp import web

from loadgen.errors import GeneratorLostError
from loadgen.fleet import Fleet
from loadgen.local_process import LocalProcess, local_processes
from loadgen.measurement import Load, Measurement
from loadgen.payloads import Payload
from loadgen.rate.goal import Goal
from loadgen.rate.search import RateSearch
from loadgen.rate.verdict import Verdict
from loadgen.schedule import Closed, Constant
from tests.stub import stub

PAYLOADS = [Payload(b"{}", {"Content-Type": "application/json"}, contains="ok")]


@asynccontextmanager
async def fleet_of(processes: int, most: int = 0) -> AsyncIterator[Fleet]:
    fleet = Fleet(local_processes(PAYLOADS), processes, most)
    try:
        yield fleet
    finally:
        fleet.close()


def pids(fleet: Fleet) -> list[int]:
    found = []
    for process in fleet._processes:
        assert isinstance(process, LocalProcess) and process._process.pid
        found.append(process._process.pid)
    return found


async def test_until_ends_a_window_and_what_is_outstanding_is_awaited() -> None:
    async with fleet_of(2) as fleet:
        with stub(service_s=0.3, batch=100) as url:
            await fleet.set_target(url)
            measured = await fleet.measure(
                Load(Constant(50), 30.0), lambda so_far: so_far.scheduled >= 20
            )
    assert 20 <= measured.scheduled < 500
    assert measured.succeeded == measured.scheduled
    assert measured.span_s < 15


async def test_a_window_that_is_given_up_leaves_no_exception_behind() -> None:
    said: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, what: said.append(what))
    async with fleet_of(2) as fleet:
        with stub() as url:
            await fleet.set_target(url)
            window = asyncio.create_task(fleet.measure(Load(Constant(20), 30.0)))
            await asyncio.sleep(1.0)
            window.cancel()
            with pytest.raises(asyncio.CancelledError):
                await window
    del window
    gc.collect()
    await asyncio.sleep(0)
    assert not said


@asynccontextmanager
async def arrivals() -> AsyncIterator[tuple[str, dict[bytes, list[float]]]]:
    """A server that notes when each request arrives, by its body."""
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


def faketime() -> str:
    found = [*Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")]
    if not found:
        pytest.skip("libfaketime is not installed")
    return str(found[0])


@pytest.mark.parametrize("clocks", ["one", "apart"])
async def test_processes_start_together(clocks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    preload = faketime() if clocks != "one" else ""

    def spawn(index: int) -> LocalProcess:
        if index == 1 and preload:
            monkeypatch.setenv("LD_PRELOAD", preload)
            monkeypatch.setenv("FAKETIME", "+3600s")
        return local_processes([Payload(str(index).encode())])(index)

    fleet = Fleet(spawn, 2)
    try:
        async with arrivals() as (url, times):
            await fleet.set_target(url)
            if preload:
                theirs = await fleet._processes[1].call("clock")
                assert abs(theirs - time.perf_counter()) > 3000
            measured = await fleet.measure(Load(Constant(20), 2.0))
    finally:
        fleet.close()
    assert measured.scheduled == measured.succeeded == 40
    # Their phases interleave: the second's requests are due 50 ms after the first's.
    behind = [second - first for first, second in zip(times[b"0"], times[b"1"], strict=True)]
    assert median(behind) == pytest.approx(1 / 20, abs=0.02)


async def test_a_lost_process_makes_the_window_invalid_and_is_replaced() -> None:
    async with fleet_of(2) as fleet:
        with stub(batch=8) as url:
            await fleet.set_target(url)
            window = asyncio.ensure_future(fleet.measure(Load(Constant(50), 20.0)))
            await asyncio.sleep(1)
            os.kill(pids(fleet)[1], signal.SIGKILL)
            with pytest.raises(GeneratorLostError):
                await window
            again = await fleet.measure(Load(Constant(50), 1.0))
    assert again.scheduled == again.succeeded == 50


async def test_a_process_that_does_not_answer_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet_of(1) as fleet:
        with stub(batch=8) as url:
            await fleet.set_target(url)
            os.kill(pids(fleet)[0], signal.SIGSTOP)
            monkeypatch.setattr("loadgen.fleet._SILENT_S", 0.5)
            with pytest.raises(GeneratorLostError, match="did not answer for"):
                await fleet.measure(Load(Constant(50), 1.0))
            monkeypatch.undo()
            assert (await fleet.measure(Load(Constant(50), 1.0))).succeeded == 50


async def test_what_one_process_cannot_offer_gets_another() -> None:
    async with fleet_of(1, most=2) as fleet:
        with stub(batch=8) as url:
            await fleet.set_target(url)
            busy = await fleet.measure(Load(Closed(2), 0.5))
            assert await fleet.add_capacity(with_cpu(busy, 0.95)) == "2 load processes"
            both = await fleet.measure(Load(Constant(20), 1.0))
            assert len(pids(fleet)) == 2
    assert both.scheduled == 20


async def test_a_starved_process_gets_a_priority_until_the_next_aim() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may raise a priority")
    async with fleet_of(1) as fleet:
        with stub(batch=8) as url:
            await fleet.set_target(url)
            starved = await fleet.measure(Load(Closed(2), 0.5))
            done = await fleet.add_capacity(with_cpu(starved, 0.1))
            assert done == "load processes of a higher priority"
            (pid,) = pids(fleet)
            assert os.getpriority(os.PRIO_PROCESS, pid) < 0
            assert await fleet.add_capacity(with_cpu(starved, 0.1)) is None, "nothing is left to do"
            await fleet.set_target(url)
            assert os.getpriority(os.PRIO_PROCESS, pid) == 0


def with_cpu(measured: Measurement, cpu: float) -> Measurement:
    return replace(measured, client_cpu=cpu)


class Dear(Payload):
    """A request whose answer costs the client about a millisecond."""

    def accepts(self, answer: bytes) -> bool:
        return sum(range(50_000)) > 0 and super().accepts(answer)


DEAR = [Dear(b"{}", contains="ok")]


async def test_a_server_faster_than_one_client_gets_another() -> None:
    """One process cannot check 2000 answers a second; two are asked before anything is said."""
    fleet = Fleet(local_processes(DEAR), 1, most=2)
    try:
        with stub(workers=8, batch=64, service_s=0.002) as url:
            await fleet.set_target(url)
            search = RateSearch(Goal(window_s=2, window_limit_s=3), fleet)
            await search._probe("bracketing", 2000)
            count = len(fleet._processes)
    finally:
        fleet.close()
    first = search._probes[0]
    assert first.verdict is Verdict.GENERATOR_LIMITED
    assert "the client's CPU was" in first.reason
    assert count == 2
    assert any("2 load processes" in doubt for doubt in search._doubts)


async def test_what_the_client_cannot_offer_is_not_the_servers_rate() -> None:
    fleet = Fleet(local_processes(DEAR), 1)
    try:
        with stub(workers=8, batch=64, service_s=0.002) as url:
            await fleet.set_target(url)
            search = RateSearch(Goal(window_s=2, window_limit_s=3, windows=1), fleet)
            verdict = await search._probe("bracketing", 2000)
    finally:
        fleet.close()
    assert verdict is Verdict.GENERATOR_LIMITED
    assert search._bounds() == (None, 2000)
    assert search._is_limited(2000)


@contextmanager
def spinning(processes: int, core: int) -> Iterator[None]:
    code = f"import os; os.sched_setaffinity(0, [{core}])\nwhile os.getppid() != 1: pass"
    spinners = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(processes)]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


async def test_a_client_starved_by_spinning_processes_is_named_and_helped() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may raise a priority")
    core = max(os.sched_getaffinity(0))
    fleet = Fleet(local_processes(PAYLOADS, [core]), 1)
    try:
        with stub(batch=8, service_s=0.01) as url:
            await fleet.set_target(url)
            with spinning(8, core):
                starved = await fleet.measure(Load(Constant(200), 3.0))
                done = await fleet.add_capacity(starved)
                helped = await fleet.measure(Load(Constant(200), 3.0))
    finally:
        fleet.close()
    assert "starved: the client waited for a core" in (starved.generator_limited or "")
    assert done == "load processes of a higher priority"
    assert helped.client_run_delay < starved.client_run_delay


@pytest.mark.timeout(60)
async def test_long_messages_arrive_whole() -> None:
    """What a window of hours has counted does not fit into a pipe at once."""
    async with fleet_of(1) as fleet:
        with stub(batch=8) as url:
            await fleet.set_target(url)
            measured = await fleet.measure(
                Load(Constant(20), 5000.0), lambda so_far: so_far.scheduled >= 5
            )
    assert len(measured.begun) > 200_000
    assert measured.succeeded == measured.scheduled >= 5
