"""Load processes on this host, against a server in another process."""

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from loadgen.client import Client
from loadgen.fleet import Fleet
from loadgen.local_process import LocalProcess, on_this_host
from loadgen.measurement import GeneratorLost, Load, Measurement
from loadgen.payloads import Payload
from loadgen.schedule import Closed, Constant
from tests.stub import stub

PAYLOADS = [Payload(b"{}", {"Content-Type": "application/json"}, contains="ok")]


@asynccontextmanager
async def fleet_of(processes: int, most: int = 0) -> AsyncIterator[Fleet]:
    fleet = Fleet(on_this_host(PAYLOADS), processes, most)
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
            await fleet.aim(url)
            measured = await fleet.measure(
                Load(Constant(50), 30.0), lambda so_far: so_far.scheduled >= 20
            )
    assert 20 <= measured.scheduled < 500
    assert measured.succeeded == measured.scheduled
    assert measured.span_s < 15


@asynccontextmanager
async def arrivals() -> AsyncIterator[tuple[str, list[float]]]:
    """A server that notes when each request arrives."""
    times: list[float] = []

    async def answer(request: web.Request) -> web.Response:
        times.append(time.perf_counter())
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


class OddClock(Client):
    """A client on a host whose clock is 1000 s ahead."""

    async def clock(self) -> float:
        return await super().clock() + 1000

    async def run(self, load, share, start):  # type: ignore[no-untyped-def]
        return await super().run(load, share, start - 1000)


class Here:
    """A process that is none."""

    def __init__(self, client: Client):
        self.client = client

    async def call(self, method: str, *arguments: object) -> object:
        return await getattr(self.client, method)(*arguments)

    def end(self) -> None:
        pass


async def test_processes_start_together_though_their_clocks_differ() -> None:
    async with arrivals() as (url, times):
        clients = [Client(PAYLOADS), OddClock(PAYLOADS), Client(PAYLOADS)]
        fleet = Fleet(lambda index: Here(clients[index]), 3)
        await fleet.aim(url)
        measured = await fleet.measure(Load(Constant(30), 1.0))
    assert measured.scheduled == measured.succeeded == 30
    gaps = sorted(b - a for a, b in itertools.pairwise(times))
    # Three processes whose phases interleave: one request every 33 ms.
    assert gaps[len(gaps) // 2] == pytest.approx(1 / 30, abs=0.02)
    assert times[-1] - times[0] == pytest.approx(29 / 30, abs=0.25)


async def test_a_lost_process_makes_the_window_invalid_and_is_replaced() -> None:
    async with fleet_of(2) as fleet:
        with stub(batch=8) as url:
            await fleet.aim(url)
            window = asyncio.ensure_future(fleet.measure(Load(Constant(50), 20.0)))
            await asyncio.sleep(1)
            os.kill(pids(fleet)[1], signal.SIGKILL)
            with pytest.raises(GeneratorLost):
                await window
            again = await fleet.measure(Load(Constant(50), 1.0))
    assert again.scheduled == again.succeeded == 50


async def test_what_one_process_cannot_offer_gets_another() -> None:
    async with fleet_of(1, most=2) as fleet:
        with stub(batch=8) as url:
            await fleet.aim(url)
            busy = await fleet.measure(Load(Closed(2), 0.5))
            assert await fleet.relieve(with_cpu(busy, 0.95)) == "2 load processes"
            both = await fleet.measure(Load(Constant(20), 1.0))
            assert len(pids(fleet)) == 2
    assert both.scheduled == 20


async def test_a_starved_process_gets_a_priority_until_the_next_aim() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may raise a priority")
    async with fleet_of(1) as fleet:
        with stub(batch=8) as url:
            await fleet.aim(url)
            starved = await fleet.measure(Load(Closed(2), 0.5))
            done = await fleet.relieve(with_cpu(starved, 0.1))
            assert done == "load processes of a higher priority"
            (pid,) = pids(fleet)
            assert os.getpriority(os.PRIO_PROCESS, pid) < 0
            assert await fleet.relieve(with_cpu(starved, 0.1)) is None, "nothing is left to do"
            await fleet.aim(url)
            assert os.getpriority(os.PRIO_PROCESS, pid) == 0


def with_cpu(measured: Measurement, cpu: float) -> Measurement:
    from dataclasses import replace

    return replace(measured, client_cpu=cpu)
