"""Probes of a simulated server of known law."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, cast
from unittest.mock import Mock

import pytest

from benchmarks.law import Law
from benchmarks.simulated import SimulatedStub
from loadgen.measurement import Load, Measurement, Until
from loadgen.rate.goal import Goal
from loadgen.rate.result import SustainedRate
from search.trial.server_probe import ProbeKind, ServerProbe, ServerProbeRecord
from search.trial.server_prober import ServerProber, may_probe
from servetune.errors import FailureKind
from serving.configuration.config import ServerConfig
from serving.errors import ServerError
from serving.metrics import ServerCounters
from serving.server import TorchServe

#: Time between two batches of a worker that is not spent in the handler, seconds.
BETWEEN_S = 0.01
LAW = Law(workers=4, batch=16, delay_s=0.03, service_s=0.05, each_s=0.01)
HALF, ONE = ServerProbe(ProbeKind.WORKERS, 2, 16), ServerProbe(ProbeKind.WORKERS, 1, 16)
SMALL = ServerProbe(ProbeKind.BATCH, 1, 4)


class ScalableServer:
    """A server of a law whose workers can be stopped; it counts its answers and batches.

    Args:
        refuses: number of workers to which it cannot be scaled down.
    """

    site = Mock()

    def __init__(self, law: Law = LAW, refuses: int = 0):
        self.law, self.refuses = law, refuses
        self.config = ServerConfig(max_batch_delay_ms=round(1000 * law.delay_s))
        self.count = ServerCounters()
        self.scaled: list[int] = []

    @property
    def models(self) -> dict[str, object]:
        return {"model": object()}

    @property
    def worker_pids(self) -> frozenset[int]:
        return frozenset(range(self.law.workers))

    @property
    def batch_capacity(self) -> int:
        return self.law.workers * self.law.batch

    async def scale_down(self, workers: int) -> None:
        if workers == self.refuses:
            raise ServerError(FailureKind.NOT_READY, "it was not scaled down", "")
        self.scaled.append(workers)
        self.law = replace(self.law, workers=workers)

    def cpu_s(self) -> float:
        return 0.0

    async def counters(self, models: object = None) -> ServerCounters:
        return self.count

    async def guard(self, work: Awaitable[Measurement]) -> Measurement:
        return await work

    def serve(self, window: Measurement, users: int) -> None:
        """Count what a window answered, in batches of all users or full ones."""
        fill = min(users, self.law.batch)
        batches = window.succeeded / fill
        handler_s = self.law.mean_s(fill) - BETWEEN_S
        self.count = ServerCounters(
            0.0,
            self.count.inference_us + 1e6 * handler_s * window.succeeded,
            self.count.batches + batches,
            self.count.answered + window.succeeded,
            self.count.handler_ms + 1000 * handler_s * batches,
        )


class Generator:
    """Closed loops on the server as it is now."""

    def __init__(self, server: ScalableServer):
        self._server = server
        self.loads: list[Load] = []

    async def measure(self, load: Load, until: Until | None = None) -> Measurement:
        self.loads.append(load)
        window = await SimulatedStub(self._server.law, seed=0).measure(load, until)
        self._server.serve(window, cast(Any, load.schedule).users)
        return window

    async def add_capacity(self, limited: Measurement) -> str | None:
        return None


async def probe(
    *probes: ServerProbe, server: ScalableServer | None = None
) -> tuple[tuple[ServerProbeRecord, ...], ScalableServer, Generator]:
    server = server or ScalableServer()
    generator = Generator(server)
    prober = ServerProber(
        cast(TorchServe, server), generator, nullcontext(), Goal(), server.law.capacity_rps
    )
    return await prober.run(probes), server, generator


def capacities(records: tuple[ServerProbeRecord, ...]) -> list[float]:
    return [record.capacity.rps if record.capacity else 0.0 for record in records]


async def test_server_prober_finds_the_capacity_of_fewer_workers_and_smaller_batches() -> None:
    records, server, generator = await probe(SMALL, ONE, HALF)
    assert server.scaled == [2, 1], "it never scales up"
    expected = [
        replace(LAW, workers=w, batch=b).capacity_rps for w, b in ((2, 16), (1, 16), (1, 4))
    ]
    # The closed loop of smaller batches waits for the delay; a server of this batch size does not.
    assert capacities(records) == pytest.approx(expected, rel=0.05)
    assert all(load.duration_s <= 12 for load in generator.loads)
    assert [cast(Any, load.schedule).users for load in generator.loads] == [64, 32, 4]


async def test_server_prober_needs_full_batches_before_smaller_ones() -> None:
    (record,), server, generator = await probe(SMALL)
    assert record.problem == "one worker with full batches was not measured before"
    assert not server.scaled and not generator.loads


async def test_server_prober_skips_what_takes_too_long() -> None:
    slow = ScalableServer(replace(LAW, service_s=3.0))
    records, server, generator = await probe(HALF, ONE, server=slow)
    assert all("its batches take too long" in record.problem for record in records)
    assert not server.scaled and not generator.loads


async def test_server_prober_skips_smaller_batches_with_a_long_delay() -> None:
    (_, record), *_ = await probe(ONE, SMALL, server=ScalableServer(replace(LAW, delay_s=5.0)))
    assert "its batches take too long" in record.problem


async def test_server_prober_stops_after_a_failure_and_raises_nothing() -> None:
    records, server, _ = await probe(HALF, ONE, SMALL, server=ScalableServer(refuses=1))
    assert [bool(record.problem) for record in records] == [False, True]
    assert "it was not scaled down" in records[1].problem and server.scaled == [2]


async def test_server_prober_has_no_result_if_requests_fail() -> None:
    short_queue = ScalableServer(replace(LAW, queue=1))
    (record,), *_ = await probe(HALF, server=short_queue)
    assert record.capacity is None and "requests failed" in record.problem


def found(capacity_rps: float) -> SustainedRate:
    return cast(SustainedRate, Mock(capacity_rps=capacity_rps))


def test_may_probe_needs_one_model_that_serves_with_several_workers() -> None:
    server = cast(Any, ScalableServer())
    assert may_probe(server, found(100.0))
    assert not may_probe(server, found(0.0))
    assert not may_probe(cast(Any, ScalableServer(replace(LAW, workers=1))), found(100.0))
    two = Mock(models={"a": 1, "b": 2}, worker_pids={1, 2})
    assert not may_probe(two, found(100.0))
