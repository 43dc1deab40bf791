"""A simulated TorchServe on a simulated machine: the rate that a configuration sustains.

A discrete-event simulation of how 0.12.0 forms batches (one lock for all workers of a model; the
delay runs from the first request that is dequeued) over workers that share cores and perhaps an
accelerator. Requests arrive at a constant rate, so that only batches are events. The parameters
are drawn at random from stated ranges; the product never imports this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Batches of each worker in a window, within these limits.
_ROUNDS, _LEAST_BATCHES, _MOST_BATCHES = 12, 60, 400
_GROWTH = 0.02
_STEPS = 7
#: A batch that takes longer than the load's timeout answers no request in time.
TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Machine:
    """A host and a model.

    A batch of n takes fixed_s + n × each_s on one thread with the machine for itself, more
    where its items leave the cache (n² × spill_s), or where more than one of them asks the kernel
    for fresh pages (n × fault_s, which threads neither divide nor wait for).

    Attributes:
        name: what is printed.
        cores: of the host.
        parallel: the share of a batch's computation that threads divide (Amdahl).
        spin: how much worse than fair sharing it is where threads outnumber cores: progress is
            (cores ÷ threads) ** (1 + spin).
        waits: the share of a batch's time that is neither core nor accelerator.
        device: the share of a batch's time on the accelerator, 0 without one.
        streams: how many batches the accelerator serves at full speed at once.
        netty_s, client_s: CPU seconds that a request costs the front end's two thread pools.
        worker_mb, item_mb, memory_mb: what a worker and an item of its batch take, of how much.
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
        """The highest constant rate without a loss; 0 where there is none.

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
        for _ in range(_STEPS):
            middle = (low + high) / 2 if low else high * 0.75
            if server.sustains(middle):
                low = middle
            else:
                high = middle
        return low

    def lacks_memory(self, config: Mapping[str, Any]) -> bool:
        """Whether the workers with their batches take more than there is."""
        each_mb = self.worker_mb + self.item_mb * config["batch_size"]
        return bool(config["workers"] * each_mb > self.memory_mb)


class _Server:
    """One configuration on a machine."""

    def __init__(self, machine: Machine, config: Mapping[str, Any]):
        self._machine = m = machine
        self.workers, self.batch = int(config["workers"]), int(config["batch_size"])
        self._delay_s = config["max_batch_delay_ms"] / 1000 if self.batch > 1 else 0.0
        self._queue = config["job_queue_size"]
        self._threads = int(config["mkl_threads"])
        pools = min(config["netty_threads"], m.cores), min(config["netty_client_threads"], m.cores)
        self._front_rps = min(pools[0] / m.netty_s, pools[1] / m.client_s)
        # Threads beyond the cores cost a little even where they only wait.
        many = (config["netty_threads"] + config["netty_client_threads"]) / (4 * m.cores)
        self._front_s = (m.netty_s + m.client_s) * (1 + 0.1 * many)

    @property
    def capacity_rps(self) -> float:
        """What full batches and the front end allow, all workers busy."""
        # The front end's cores are not the workers': a few rounds settle how many are left.
        rate = 0.0
        for _ in range(6):
            slowed = self._alone_s(self.batch) / self._speed(self.workers, rate)
            found = min(self.workers * self.batch / slowed, self._front_rps)
            rate = (rate + found) / 2 if rate else found
        return rate

    def sustains(self, rate: float) -> bool:
        """Whether a window at this rate overflows no queue, and ends with none growing."""
        batches = min(max(_ROUNDS * self.workers, _LEAST_BATCHES), _MOST_BATCHES)
        now, taken, begun = 0.0, 0, 0
        #: Work that is left of each batch in service, seconds at full speed.
        left: list[float] = []
        forming: tuple[float, int] | None = None
        waiting: list[float] = []
        while begun < batches:
            if forming is None and len(left) < self.workers:
                first = max(now, taken / rate)
                behind = first * rate - taken
                if behind > self._queue:
                    return False
                waiting.append(behind)
                full = (taken + self.batch - 1) / rate
                closes = min(max(full, first), first + self._delay_s)
                count = min(self.batch, int(closes * rate + 1e-9) + 1 - taken)
                forming = closes, count
            speed = self._speed(len(left), rate)
            ends = now + min(left) / speed if left else math.inf
            closes = forming[0] if forming else math.inf
            at = min(ends, closes)
            left = [work - (at - now) * speed for work in left]
            now = at
            if forming and closes <= ends:
                count = forming[1]
                work = self._alone_s(count)
                if work / self._speed(len(left) + 1, rate) > TIMEOUT_S:
                    return False
                left.append(work)
                taken += count
                begun += 1
                forming = None
            else:
                left.remove(min(left))
        half, quarter = len(waiting) // 2, len(waiting) // 4
        earlier = float(np.mean(waiting[quarter:half] or [0.0]))
        growth = float(np.mean(waiting[-quarter:] or [0.0])) - earlier
        return growth <= max(_GROWTH * taken / 2, 1.0)

    def _alone_s(self, count: int) -> float:
        m = self._machine
        work = m.fixed_s + count * m.each_s + count**2 * m.spill_s
        computes = 1 - m.waits - m.device
        threaded = (1 - m.parallel) + m.parallel / min(self._threads, m.cores)
        faults = count * m.fault_s if count > 1 else 0.0
        return work * (computes * threaded + m.waits + m.device) + faults

    def _speed(self, busy: int, rate: float) -> float:
        """Return the progress of each of N concurrent batches ÷ that of one alone."""
        m = self._machine
        if busy == 0:
            return 1.0
        cores = max(m.cores - rate * self._front_s, 0.1 * m.cores)
        computes = 1 - m.waits - m.device
        threaded = computes * ((1 - m.parallel) + m.parallel / min(self._threads, m.cores))
        alone = threaded + m.waits + m.device
        whole = self._alone_s(self.batch)
        faults = self.batch * m.fault_s / whole if self.batch > 1 else 0.0
        threaded, waits, device = (
            (1 - faults) * part / alone for part in (threaded, m.waits, m.device)
        )
        # Threads that wait for each other spin, and want a core all the while.
        wanted = busy * (self._threads * threaded + faults)
        crowd = max(1.0, wanted / cores)
        spin = m.spin if self._threads > 1 else 0.0
        queued = max(1.0, busy * device / m.streams)
        slower: float = threaded * crowd ** (1 + spin) + faults * crowd + waits + device * queued
        return 1 / slower
