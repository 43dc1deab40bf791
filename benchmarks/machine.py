"""Simulate TorchServe on a host: the rate that a configuration sustains.

A discrete-event simulation of how TorchServe 0.12.0 forms batches: all workers of a model share one
lock, and the batch delay starts with the first request that is dequeued. Workers share cores and
optionally an accelerator. Requests arrive at a constant rate, so only batches are events. The
parameters are drawn at random from stated ranges. The product does not import this module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from search.sampler.observations import Telemetry
from serving.metrics import HandlerTime

#: Batches in a window: for each worker, then the limits of their total.
_BATCHES_PER_WORKER, _MIN_BATCHES, _MAX_BATCHES = 12, 60, 400
#: Maximum growth of the backlog in a window that passes, ÷ half of its requests.
_MAX_GROWTH = 0.02
_BISECTION_STEPS = 7
#: Timeout of a request, seconds: a batch that takes longer fails.
TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Machine:
    """A host and a model.

    A batch of n items takes fixed_s + n × each_s on one thread of an idle host. It takes
    n² × spill_s more for items that exceed the cache, and, with more than one item, n × fault_s
    more for memory that the kernel allocates; threads do not divide the latter.

    Attributes:
        name: shown in the output.
        cores: of the host.
        parallel: share of a batch's computation that threads divide (Amdahl).
        spin: penalty for more threads than cores: progress is (cores ÷ threads) ** (1 + spin).
        waits: share of a batch's time that needs neither core nor accelerator.
        device: share of a batch's time on the accelerator, 0 without one.
        streams: number of batches that the accelerator serves at full speed at once.
        netty_s, client_s: CPU seconds per request in the two thread pools of the front end.
        worker_mb, item_mb, memory_mb: memory of a worker, of an item of its batch, of the host.
        noise: standard deviation of a measurement ÷ its mean.
    """

    name: str
    cores: int
    fixed_s: float
    each_s: float
    spill_s: float = 0.0
    fault_s: float = 0.0
    parallel: float = 0.8
    spin: float = 0.5
    waits: float = 0.0
    device: float = 0.0
    streams: int = 1
    netty_s: float = 2e-4
    client_s: float = 1e-4
    worker_mb: float = 500.0
    item_mb: float = 1.0
    memory_mb: float = 16_000.0
    noise: float = 0.05

    def sustained_rps(self, config: Mapping[str, Any]) -> float:
        """Return the highest constant rate without a failure, requests/s; 0 if there is none.

        Args:
            config: workers, batch_size, max_batch_delay_ms, netty_threads,
                netty_client_threads, mkl_threads and job_queue_size.
        """
        if self.lacks_memory(config):
            return 0.0
        server = _Server(self, config)
        high = server.capacity_rps
        if server.sustains(high):
            return high
        low = 0.0
        for _ in range(_BISECTION_STEPS):
            middle = (low + high) / 2 if low else high * 0.75
            if server.sustains(middle):
                low = middle
            else:
                high = middle
        return low

    def capacity_rps(self, config: Mapping[str, Any]) -> float:
        """Return the rate with all workers busy and full batches, requests/s."""
        return 0.0 if self.lacks_memory(config) else _Server(self, config).capacity_rps

    def lacks_memory(self, config: Mapping[str, Any]) -> bool:
        """Return whether the workers and their batches exceed the memory."""
        return self._used_mb(config) > self.memory_mb

    def telemetry(self, config: Mapping[str, Any]) -> Telemetry:
        """Return what a trial reports, without noise.

        The handler times are those of a single request on an idle server, and of a batch in the
        closed loop.
        """
        server = _Server(self, config)
        batch_s = server.batch_s(server.workers, server.capacity_rps)
        busy = min(server.capacity_rps * batch_s / server.batch, server.workers)
        single = _Server(self, {**config, "workers": 1, "batch_size": 1})
        times = HandlerTime(1, 1, single.batch_s(1, 0.0)), HandlerTime(server.batch, busy, batch_s)
        return Telemetry(times, self._used_mb(config))

    def _used_mb(self, config: Mapping[str, Any]) -> float:
        loaded_worker_mb = self.worker_mb + self.item_mb * config["batch_size"]
        return float(config["workers"] * loaded_worker_mb)


class _Server:
    """A configuration on a machine."""

    def __init__(self, machine: Machine, config: Mapping[str, Any]):
        self._machine = m = machine
        self.workers, self.batch = int(config["workers"]), int(config["batch_size"])
        self._delay_s = config["max_batch_delay_ms"] / 1000 if self.batch > 1 else 0.0
        self._queue = config["job_queue_size"]
        self._threads = int(config["mkl_threads"])
        pools = min(config["netty_threads"], m.cores), min(config["netty_client_threads"], m.cores)
        self._front_rps = min(pools[0] / m.netty_s, pools[1] / m.client_s)
        # Idle threads have a small cost too.
        crowding = (config["netty_threads"] + config["netty_client_threads"]) / (4 * m.cores)
        self._front_s = (m.netty_s + m.client_s) * (1 + 0.1 * crowding)

    @property
    def capacity_rps(self) -> float:
        """The rate with full batches and all workers busy, requests/s."""
        # A fixed-point iteration: the front end's use of the cores depends on the rate.
        rate = 0.0
        for _ in range(6):
            batch_s = self.batch_s(self.workers, rate)
            next_rate = min(self.workers * self.batch / batch_s, self._front_rps)
            rate = (rate + next_rate) / 2 if rate else next_rate
        return rate

    def batch_s(self, busy: int, rate: float) -> float:
        """Return the duration of a full batch beside `busy` - 1 others, seconds."""
        return self._idle_host_s(self.batch) / self._speed(busy, rate)

    def sustains(self, rate: float) -> bool:
        """Return whether a window at this rate ends without an overflow or a growing backlog."""
        batches = min(max(_BATCHES_PER_WORKER * self.workers, _MIN_BATCHES), _MAX_BATCHES)
        now, dequeued, started = 0.0, 0, 0
        #: Remaining work of each batch in service, seconds at full speed.
        remaining: list[float] = []
        #: When the batch that is being formed closes, and its number of items.
        forming: tuple[float, int] | None = None
        backlogs: list[float] = []
        while started < batches:
            if forming is None and len(remaining) < self.workers:
                first = max(now, dequeued / rate)
                backlog = first * rate - dequeued
                if backlog > self._queue:
                    return False
                backlogs.append(backlog)
                full = (dequeued + self.batch - 1) / rate
                closes = min(max(full, first), first + self._delay_s)
                count = min(self.batch, int(closes * rate + 1e-9) + 1 - dequeued)
                forming = closes, count
            speed = self._speed(len(remaining), rate)
            ends = now + min(remaining) / speed if remaining else math.inf
            closes = forming[0] if forming else math.inf
            event = min(ends, closes)
            remaining = [work - (event - now) * speed for work in remaining]
            now = event
            if forming and closes <= ends:
                count = forming[1]
                work = self._idle_host_s(count)
                if work / self._speed(len(remaining) + 1, rate) > TIMEOUT_S:
                    return False
                remaining.append(work)
                dequeued += count
                started += 1
                forming = None
            else:
                remaining.remove(min(remaining))
        half, quarter = len(backlogs) // 2, len(backlogs) // 4
        earlier = float(np.mean(backlogs[quarter:half] or [0.0]))
        growth = float(np.mean(backlogs[-quarter:] or [0.0])) - earlier
        return growth <= max(_MAX_GROWTH * dequeued / 2, 1.0)

    def _idle_host_s(self, count: int) -> float:
        """Return the duration of a batch of this many items on an idle host, seconds."""
        m = self._machine
        work = m.fixed_s + count * m.each_s + count**2 * m.spill_s
        computes = 1 - m.waits - m.device
        threaded = (1 - m.parallel) + m.parallel / min(self._threads, m.cores)
        faults = count * m.fault_s if count > 1 else 0.0
        return work * (computes * threaded + m.waits + m.device) + faults

    def _speed(self, busy: int, rate: float) -> float:
        """Return the speed of each of N concurrent batches, ÷ that of one on an idle host."""
        m = self._machine
        if busy == 0:
            return 1.0
        cores = max(m.cores - rate * self._front_s, 0.1 * m.cores)
        computes = 1 - m.waits - m.device
        threaded = computes * ((1 - m.parallel) + m.parallel / min(self._threads, m.cores))
        total = threaded + m.waits + m.device
        batch_s = self._idle_host_s(self.batch)
        faults = self.batch * m.fault_s / batch_s if self.batch > 1 else 0.0
        threaded, waits, device = (
            (1 - faults) * part / total for part in (threaded, m.waits, m.device)
        )
        # Threads that wait for each other spin, and use a core.
        busy_threads = busy * (self._threads * threaded + faults)
        contention = max(1.0, busy_threads / cores)
        spin = m.spin if self._threads > 1 else 0.0
        queueing = max(1.0, busy * device / m.streams)
        slowdown: float = (
            threaded * contention ** (1 + spin) + faults * contention + waits + device * queueing
        )
        return 1 / slowdown
