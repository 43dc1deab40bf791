"""What TorchServe tells of its batches, against a handler that counts them itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from loadgen.fleet import Fleet
from loadgen.local_process import local_processes
from loadgen.measurement import Load
from loadgen.payloads import Payload
from loadgen.schedule import Constant
from search.trial.observation import ObservedGenerator, observation_of
from serving.config import ServerConfig
from serving.server import TorchServe
from serving.site import Site

WORK_S = 0.05
COUNTS = f"""
import os, time

def handle(data, context):
    if data is None:
        return None
    time.sleep({WORK_S})
    with open(os.environ["BATCHES"], "a") as log:
        log.write(f"{{len(data)}}\\n")
    return [{{"ok": True}} for _ in data]
"""
#: TorchServe counts after it has answered.
SETTLED_S = 0.5


async def test_torchserves_account_is_the_handlers_own(
    site: Callable[..., Site], tmp_path: Path
) -> None:
    log = tmp_path / "batches"
    config = ServerConfig(
        workers=2,
        batch_size=8,
        max_batch_delay_ms=40,
        netty_threads=1,
        netty_client_threads=1,
        mkl_threads=1,
        environment={"BATCHES": str(log)},
    )
    payload = Payload(b"{}", {"Content-Type": "application/json"}, contains="ok")
    async with TorchServe(config, site(COUNTS), tmp_path / "trial") as server:
        fleet = Fleet(local_processes([payload]))
        await fleet.set_target(server.url)
        observed = ObservedGenerator(server, fleet, nullcontext(), lambda told: None)
        await observed.measure(Load(Constant(40), 1.0))
        await asyncio.sleep(SETTLED_S)
        before = await server.counters()
        log.write_text("")
        measured = await observed.measure(Load(Constant(80), 4.0))
        await asyncio.sleep(SETTLED_S)
        after = await server.counters()
        fleet.close()
    assert before is not None and after is not None
    sizes = [int(line) for line in log.read_text().splitlines()]
    assert sum(sizes) == measured.succeeded == measured.scheduled == 320
    assert len(sizes) < 320, "some held more than one"
    assert after.batches - before.batches == len(sizes)
    assert after.answered - before.answered == 320

    assert observed.windows[-1] is measured
    observation = observation_of(measured)
    assert observation is not None
    told = observation.server
    assert told is not None
    # Read at once after the last answer: a batch may be missing, one for each worker.
    assert told.mean_batch_fill == pytest.approx(320 / len(sizes), rel=3 / len(sizes))
    assert WORK_S <= told.inference_s - told.queue_s < 3 * WORK_S
    assert told.busy_workers == pytest.approx(len(sizes) * WORK_S / measured.span_s, rel=1.0)
    assert told.queue_s > 0
