"""A capacity plan against two TorchServe servers behind a round-robin."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from aiohttp import web

from search.answer.operating_points import LatencyPoint
from search.answer.plan import capacity_plan
from serving.archive import Archive
from serving.configuration.config import ServerConfig
from serving.installation import find_installation
from serving.server import TorchServe
from serving.site import Site
from tests.archives import make_archive
from tests.real.conftest import BATCHED
from tests.search.answer.points import point

pytestmark = [pytest.mark.torchserve, pytest.mark.slow, pytest.mark.timeout(300)]

#: One request at a time takes 50 ms without CPU, so that two servers do not slow each other down.
WAITING = BATCHED.replace("0.1", "0.05")
RATE_RPS = 16.0
SECONDS = 20.0


async def p99_s(session: aiohttp.ClientSession, url: str, rate_rps: float, seed: int) -> float:
    """Offer Poisson arrivals; return the p99 latency from the due time, seconds."""
    rng, loop = random.Random(seed), asyncio.get_running_loop()
    start, due, requests = loop.time(), 0.0, []

    async def request(due_s: float) -> float:
        await asyncio.sleep(max(0.0, due_s - loop.time()))
        async with session.post(url, data=b"x") as answer:
            assert answer.status == 200
            await answer.read()
        return loop.time() - due_s

    while (due := due + rng.expovariate(rate_rps)) < SECONDS:
        requests.append(asyncio.create_task(request(start + due)))
    return float(np.quantile(await asyncio.gather(*requests), 0.99))


def round_robin(session: aiohttp.ClientSession, urls: Sequence[str]) -> web.Application:
    """Return a proxy that sends requests to the servers in turn."""
    turns = itertools.cycle(urls)

    async def forward(request: web.Request) -> web.Response:
        async with session.post(next(turns), data=await request.read()) as answer:
            return web.Response(status=answer.status, body=await answer.read())

    application = web.Application()
    application.router.add_post("/", forward)
    return application


async def test_plan_holds_for_two_servers_behind_a_round_robin(tmp_path: Path) -> None:
    archive = Archive.read(make_archive(tmp_path, WAITING))
    site = Site(archive, find_installation())
    config = ServerConfig(workers=1, batch_size=1, job_queue_size=1000)
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        TorchServe(config, site, tmp_path / "a") as first,
        TorchServe(config, site, tmp_path / "b") as second,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        curve = []
        for share in (0.5, 0.7, 0.9):
            found_s = await p99_s(session, first.url, share * RATE_RPS, seed=1)
            curve.append(LatencyPoint(share, share * RATE_RPS, None, None, found_s))
        measured = point(0, RATE_RPS, latency=tuple(curve))
        load_rps = 1.4 * RATE_RPS
        plan = capacity_plan(measured, load_rps, headroom=0.3)
        assert plan.count == 2 and plan.load.p99_s is not None
        runner = web.AppRunner(round_robin(session, [first.url, second.url]))
        await runner.setup()
        try:
            proxy = web.TCPSite(runner, "127.0.0.1", 0)
            await proxy.start()
            host, port = runner.addresses[0][:2]
            found_s = await p99_s(session, f"http://{host}:{port}/", load_rps, seed=2)
        finally:
            await runner.cleanup()
    # The round-robin makes arrivals more regular; the host may be busy with something else.
    print(f"planned {plan.load.p99_s.value:.3f} s, measured {found_s:.3f} s")
    assert found_s <= 1.5 * plan.load.p99_s.value
