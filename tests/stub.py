"""An HTTP server whose capacity is known by construction, in a process of its own.

Each of `workers` takes up to `batch` waiting requests at once and answers them `service_s`
later; more than `queue` waiting are answered 503; every `fail_every`-th request gets a 500.
Its capacity is workers × batch ÷ service_s.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator

from aiohttp import web


async def serve(workers: int, batch: int, service_s: float, queue: int, fail_every: int) -> None:
    waiting: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()
    count = 0

    async def work() -> None:
        while True:
            taken = [await waiting.get()]
            while len(taken) < batch and not waiting.empty():
                taken.append(waiting.get_nowait())
            await asyncio.sleep(service_s)
            for answer in taken:
                if not answer.done():
                    answer.set_result(None)

    async def answer(request: web.Request) -> web.Response:
        nonlocal count
        count += 1
        await request.read()
        if waiting.qsize() >= queue:
            return web.Response(status=503)
        if fail_every and count % fail_every == 0:
            return web.Response(status=500)
        done = asyncio.get_running_loop().create_future()
        waiting.put_nowait(done)
        await done
        return web.json_response({"ok": True})

    app = web.Application()
    app.router.add_post("/{tail:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    print(site._server.sockets[0].getsockname()[1], flush=True)  # type: ignore[attr-defined]
    await asyncio.gather(*[work() for _ in range(workers)])


@contextlib.contextmanager
def stub(
    workers: int = 1,
    batch: int = 1,
    service_s: float = 0.01,
    queue: int = 1000,
    fail_every: int = 0,
) -> Iterator[str]:
    """Run one, and yield its URL."""
    arguments = [str(x) for x in (workers, batch, service_s, queue, fail_every)]
    process = subprocess.Popen(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/predictions/stub"
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name, kind in (("workers", int), ("batch", int), ("service_s", float), ("queue", int)):
        parser.add_argument(name, type=kind)
    parser.add_argument("fail_every", type=int)
    asyncio.run(serve(**vars(parser.parse_args())))
