"""Tests of TorchServe's counters against a handler that counts its batches."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from loadgen.fleet import Fleet
from loadgen.local_process import local_processes
from loadgen.measurement import Load
from loadgen.payloads import Payload
from loadgen.schedule import Constant
from search.trial.observation import ObservedGenerator, observation_of
from serving.configuration.config import ServerConfig
from serving.server import TorchServe
from serving.site import Site
from tests.real.conftest import counted

WORK_S = 0.01
COUNTS = f"""
import os, time

def handle(data, context):
    if data is None:
        return None
    # Larger batches take longer: a mean over requests is not one over batches.
    seconds = {WORK_S} * len(data)
    time.sleep(seconds)
    with open(os.environ["BATCHES"], "a") as log:
        log.write(f"{{len(data)}}\\n")
    return [{{"ok": True}} for _ in data]
"""


async def test_counters_equal_counts_of_handler(site: Callable[..., Site], tmp_path: Path) -> None:
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
        observed = ObservedGenerator(server, fleet, nullcontext(), lambda event: None)
        await observed.measure(Load(Constant(40), 1.0))
        before = await counted(server, 40, config.workers + len(log.read_text().splitlines()))
        log.write_text("")
        measured = await observed.measure(Load(Constant(80), 4.0))
        sizes = [int(line) for line in log.read_text().splitlines()]
        after = await counted(server, 360, int(before.batches) + len(sizes))
        fleet.close()
    assert sum(sizes) == measured.succeeded == measured.scheduled == 320
    assert 320 / 8 <= len(sizes) <= 320
    assert after.batches - before.batches == len(sizes)
    assert after.answered - before.answered == 320

    settled = after.since(before, measured.span_s)
    assert settled is not None and settled.mean_batch_fill == 320 / len(sizes)
    assert settled.queue_s > 0
    assert settled.inference_s - settled.queue_s >= WORK_S
    assert settled.inference_s <= 1.01 * (measured.service.mean() or 0)

    assert observed.windows[-1] is measured
    observation = observation_of(measured)
    assert observation is not None and observation.server is not None
    # Read right after the last answer: the last batch of each worker may be missing.
    early = observation.server
    assert early.mean_batch_fill is not None and early.busy_workers is not None
    least_answered, least_batches = 320 - 2 * 8, len(sizes) - 2
    assert least_answered / len(sizes) <= early.mean_batch_fill <= 320 / least_batches
    assert early.inference_s <= settled.inference_s * 320 / least_answered
    work_s = WORK_S * sum(sizes)
    assert after.handler_ms - before.handler_ms >= 1000 * work_s
    assert after.handler_ms - before.handler_ms <= 1.2 * 1000 * work_s
    assert 0.5 * work_s / measured.span_s <= early.busy_workers <= config.workers
