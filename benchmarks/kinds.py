"""Servers whose rate does not follow the sampler's formula: `KINDS` by name.

Each kind is a closed formula for the duration of a batch and for the limit of the front end. Their
parameters are drawn at random from stated ranges. The sampler was developed on the kinds in
`CHOICE_KINDS`; the others were used for the published figures only. The product does not import
this module.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from search.sampler.observations import Telemetry
from serving.metrics import HandlerTime

Config = Mapping[str, int]


@dataclass(frozen=True)
class OtherServer:
    """A server on a host: the base of all kinds.

    Attributes:
        name: shown in the output.
        cores: of the host.
        scale_s: duration of the handler's basic step, seconds.
        front_rps: rate of one event loop thread of the front end, requests/s.
        worker_mb, item_mb, memory_mb: memory of a worker, of an item of its batch, of the host.
        noise: standard deviation of a measurement ÷ its mean.
    """

    name: str
    cores: int
    scale_s: float
    front_rps: float = 5000.0
    worker_mb: float = 400.0
    item_mb: float = 1.0
    memory_mb: float = 64_000.0
    noise: float = 0.05

    def batch_s(self, config: Config, batch: int, busy: float) -> float:
        """Return the duration of a batch while `busy` workers compute, seconds."""
        raise NotImplementedError

    def front_limit_rps(self, config: Config) -> float:
        """Return the rate of the front end, requests/s."""
        threads = min(config["netty_threads"], config["netty_client_threads"], self.cores)
        return self.front_rps * threads / (1 + 0.1 * (threads - 1))

    def sustained_rps(self, config: Config) -> float:
        """Return the rate of a configuration, requests/s; 0 if it lacks memory."""
        if self.lacks_memory(config):
            return 0.0
        workers, batch = config["workers"], config["batch_size"]
        worker_rps = workers * batch / self.batch_s(config, batch, workers)
        return min(worker_rps, self.front_limit_rps(config))

    def capacity_rps(self, config: Config) -> float:
        """Return the rate with all workers busy and full batches, requests/s."""
        return self.sustained_rps(config)

    def lacks_memory(self, config: Config) -> bool:
        """Return whether the workers and their batches exceed the memory."""
        return self._memory_mb(config) > self.memory_mb

    def telemetry(self, config: Config) -> Telemetry:
        """Return what a trial reports, without noise."""
        workers, batch = config["workers"], config["batch_size"]
        batch_s = self.batch_s(config, batch, workers)
        busy = min(self.sustained_rps(config) * batch_s / batch, workers)
        times = (
            HandlerTime(1, 1, self.batch_s(config, 1, 1)),
            HandlerTime(batch, max(busy, 1e-3), batch_s),
        )
        return Telemetry(times, self._memory_mb(config))

    def _memory_mb(self, config: Config) -> float:
        each_mb = self.worker_mb + self.item_mb * config["batch_size"]
        return float(config["workers"] * each_mb)


@dataclass(frozen=True)
class MemoryBandwidth(OtherServer):
    """Each batch reads the weights, and every core shares the bandwidth of the memory.

    Attributes:
        item_share: traffic of an item ÷ that of the weights.
        streams: number of cores that saturate the memory.
        thrash: growth of the traffic with each worker, whose caches evict each other.
    """

    item_share: float = 0.03
    streams: float = 2.0
    thrash: float = 0.1

    def batch_s(self, config: Config, batch: int, busy: float) -> float:
        traffic = self.scale_s * (1 + self.item_share * batch) * (1 + self.thrash * (busy - 1))
        threads = min(config["mkl_threads"], self.cores)
        speed = min(math.pow(threads, 0.7), self.streams / busy)
        compute_s = 0.2 * self.scale_s * batch * self.item_share * max(busy / self.cores, 1)
        return traffic / speed + compute_s + 1e-4 * threads


@dataclass(frozen=True)
class ExternalService(OtherServer):
    """The handler calls a service for every item, some at once, and waits.

    Attributes:
        calls: concurrent calls of a worker.
        service_calls: concurrent calls that the service answers without delay.
    """

    calls: int = 4
    service_calls: float = 400.0

    def batch_s(self, config: Config, batch: int, busy: float) -> float:
        concurrent = busy * min(batch, self.calls)
        slow = math.pow(max(concurrent / self.service_calls, 1.0), 1.5)
        compute_s = 0.01 * self.scale_s * batch * max(busy / self.cores, 1.0)
        return self.scale_s * math.ceil(batch / self.calls) * slow + compute_s


@dataclass(frozen=True)
class LockedFrontEnd(OtherServer):
    """A fast handler behind a front end whose threads wait for locks (universal scalability law).

    Attributes:
        contention, coherence: of the event loop threads.
        client_contention: of the threads between front end and workers.
    """

    contention: float = 0.05
    coherence: float = 0.01
    client_contention: float = 0.1

    def batch_s(self, config: Config, batch: int, busy: float) -> float:
        contended = max(busy * min(config["mkl_threads"], self.cores) / self.cores, 1.0)
        return self.scale_s * (1 + 0.1 * batch) * math.sqrt(contended)

    def front_limit_rps(self, config: Config) -> float:
        n, m = config["netty_threads"], config["netty_client_threads"]
        netty = n / (1 + self.contention * (n - 1) + self.coherence * n * (n - 1))
        client = m / (1 + self.client_contention * (m - 1) + self.coherence * m * (m - 1) / 4)
        # Each worker holds the queue's lock for a moment.
        lock = 1 + 0.02 * config["workers"] + 0.3 / config["batch_size"]
        return self.front_rps / lock / (0.6 / netty + 0.4 / client)


@dataclass(frozen=True)
class BatchMemory(OtherServer):
    """An activation buffer that only the batch size fills; larger batches are always faster.

    Attributes:
        max_batch: the largest batch that fits.
        gain: exponent by which a batch of n takes n ** gain.
    """

    max_batch: int = 40
    gain: float = 0.6

    def batch_s(self, config: Config, batch: int, busy: float) -> float:
        threads = min(config["mkl_threads"], self.cores)
        contended = math.pow(max(busy * threads / self.cores, 1.0), 1.3)
        return self.scale_s * math.pow(batch, self.gain) * (0.4 + 0.6 / threads) * contended

    def lacks_memory(self, config: Config) -> bool:
        return bool(config["batch_size"] > self.max_batch)


@dataclass(frozen=True)
class DefaultBest(OtherServer):
    """A handler that TorchServe's defaults suit: batches are padded, and all threads help.

    Attributes:
        padding: growth of an item's duration when its batch doubles.
        crowding: exponent of the loss with more workers than cores.
    """

    padding: float = 0.15
    crowding: float = 1.5

    def batch_s(self, config: Config, batch: int, busy: float) -> float:
        threads = min(config["mkl_threads"], self.cores)
        item_s = self.scale_s * (1 + self.padding * math.log2(batch)) * (0.6 + 0.4 / threads)
        return batch * item_s * math.pow(max(busy / self.cores, 1.0), self.crowding)


@dataclass(frozen=True)
class Jagged(OtherServer):
    """Kernels that suit some batch sizes, and schedules that suit some numbers of workers.

    Attributes:
        roughness: loss of the least suitable sizes.
        pattern: selects which they are.
    """

    roughness: float = 0.4
    pattern: int = 0

    def batch_s(self, config: Config, batch: int, busy: float) -> float:
        threads = min(config["mkl_threads"], self.cores)
        padded = math.ceil(batch / 8) * 8 if batch > 4 else batch
        contended = math.pow(max(busy * threads / self.cores, 1.0), 1.4)
        uneven = 1.0 if self.cores % max(int(busy), 1) == 0 else 1.15
        rough = self._chance(f"b{padded}") + self._chance(f"w{int(busy)} t{threads}")
        work = self.scale_s * (1 + 0.08 * padded) * (0.3 + 0.7 / threads)
        return work * contended * uneven * (1 + self.roughness * rough)

    def _chance(self, text: str) -> float:
        digest = hashlib.sha256(f"{self.pattern} {text}".encode()).digest()
        return digest[0] / 255


@dataclass(frozen=True)
class TwoBasins(OtherServer):
    """Either many workers whose batches stay in their caches, or one with all threads.

    Attributes:
        cache_items: items that the caches of a core hold.
        sync_share: duration of a synchronization of the threads ÷ that of an item.
        gain: speed of large batches on all threads ÷ that of small ones.
    """

    cache_items: float = 6.0
    sync_share: float = 1.0
    gain: float = 2.0

    def batch_s(self, config: Config, batch: int, busy: float) -> float:
        threads = min(config["mkl_threads"], self.cores)
        contended = math.pow(max(busy * threads / self.cores, 1.0), 1.6)
        misses = batch / (batch + self.cache_items)
        # Memory traffic of large batches is shared by the threads of one worker, not by workers.
        speed = 1 + (self.gain - 1) * misses * (threads - 1) / max(self.cores - 1, 1)
        slow = 1 + 2.0 * misses * max(busy - 1, 0) / self.cores
        sync_s = self.sync_share * self.scale_s * (threads - 1)
        fixed_s = 0.8 * self.scale_s
        return (fixed_s + batch * self.scale_s / threads * slow / speed) * contended + sync_s


@dataclass(frozen=True)
class FlatAccelerator(OtherServer):
    """An accelerator that takes as long for one item as for a full tile.

    Items are prepared on cores.

    Attributes:
        tile: items of a tile.
        prepare_share: preparation of an item ÷ duration of a tile.
    """

    tile: int = 32
    prepare_share: float = 0.01

    def batch_s(self, config: Config, batch: int, busy: float) -> float:
        device_s = self.scale_s * math.ceil(batch / self.tile)
        threads = min(config["mkl_threads"], self.cores)
        crowded = math.pow(max(busy * threads / self.cores, 1.0), 1.2)
        prepare_s = self.prepare_share * self.scale_s * batch * (0.5 + 0.5 / threads) * crowded
        # The batches of all workers take turns on the device.
        return max(device_s + prepare_s, busy * device_s)


@dataclass(frozen=True)
class DelayBound(OtherServer):
    """Requests come in bursts, so that batches close by their delay unless they are small.

    Attributes:
        burst: requests of a burst.
        waiting: share of the delay that an incomplete batch waits.
    """

    burst: float = 12.0
    waiting: float = 0.7

    def batch_s(self, config: Config, batch: int, busy: float) -> float:
        threads = min(config["mkl_threads"], self.cores)
        contended = math.pow(max(busy * threads / self.cores, 1.0), 1.5)
        work = self.scale_s * (1 + 0.1 * batch) * (0.4 + 0.6 / threads) * contended
        incomplete = batch / (batch + self.burst)
        # A short delay leaves the batch partly empty: more batches for the same requests.
        delay_s = config["max_batch_delay_ms"] / 1000
        fill = 1 - 0.5 * incomplete * math.exp(-delay_s / (2 * self.scale_s))
        return (work + self.waiting * incomplete * delay_s) / fill


@dataclass(frozen=True)
class TwoSockets(OtherServer):
    """Two sockets: threads that share memory across them are slow, and so are odd placements.

    Attributes:
        remote: loss of a worker whose threads do not fit into a socket.
        item_share: duration of an item ÷ fixed duration of a batch.
    """

    remote: float = 1.0
    item_share: float = 0.08

    def batch_s(self, config: Config, batch: int, busy: float) -> float:
        socket = self.cores / 2
        threads = min(config["mkl_threads"], self.cores)
        used = busy * threads
        remote = 1 + self.remote * max(threads - socket, 0) / socket
        crossing = 1.0 if used <= socket else 1 + 0.3 * min(used / socket - 1, 1)
        crowded = math.pow(max(used / self.cores, 1.0), 2)
        speed = 1 / (0.15 + 0.85 / threads)
        work = self.scale_s * (1 + self.item_share * batch)
        return work / speed * remote * crossing * crowded


Ranges = Mapping[str, tuple[float, float]]
#: By name: the class, and the log-uniform ranges of its parameters.
KINDS: Mapping[str, tuple[Callable[..., OtherServer], Ranges]] = {
    "memory bandwidth": (
        MemoryBandwidth,
        {
            "scale_s": (0.01, 0.1),
            "item_share": (0.01, 0.1),
            "streams": (1.5, 6),
            "thrash": (0.05, 0.3),
        },
    ),
    "lock-bound front end": (
        LockedFrontEnd,
        {
            "scale_s": (0.0005, 0.003),
            "front_rps": (800, 2500),
            "contention": (0.02, 0.3),
            "coherence": (0.003, 0.05),
            "client_contention": (0.03, 0.3),
        },
    ),
    "batch memory": (
        BatchMemory,
        {"scale_s": (0.01, 0.1), "max_batch": (6, 90), "gain": (0.4, 0.8)},
    ),
    "two basins": (
        TwoBasins,
        {"scale_s": (0.004, 0.03), "cache_items": (2, 12), "sync_share": (0.1, 1), "gain": (2, 5)},
    ),
    "delay-bound": (
        DelayBound,
        {"scale_s": (0.005, 0.03), "burst": (4, 40), "waiting": (0.3, 1)},
    ),
    "external service": (
        ExternalService,
        {"scale_s": (0.05, 0.5), "calls": (2, 8), "service_calls": (50, 1000)},
    ),
    "default best": (
        DefaultBest,
        {"scale_s": (0.01, 0.1), "padding": (0.05, 0.3), "crowding": (1.1, 2)},
    ),
    "jagged": (
        Jagged,
        {"scale_s": (0.01, 0.1), "roughness": (0.2, 0.6), "pattern": (1, 1e6)},
    ),
    "flat accelerator": (
        FlatAccelerator,
        {"scale_s": (0.01, 0.1), "tile": (12, 70), "prepare_share": (0.003, 0.03)},
    ),
    "two sockets": (
        TwoSockets,
        {"scale_s": (0.01, 0.1), "remote": (0.5, 2), "item_share": (0.03, 0.3)},
    ),
}
#: Kinds on which the sampler was developed.
CHOICE_KINDS = (
    "memory bandwidth",
    "lock-bound front end",
    "batch memory",
    "two basins",
    "delay-bound",
)
OTHER_CORES = (4, 16)
_NOISE_RANGE = (0.03, 0.08)
_INTEGERS = {"max_batch", "calls", "pattern", "tile"}


def draw_parameters(
    ranges: Mapping[str, tuple[float, float]], random: np.random.Generator
) -> dict[str, Any]:
    """Return a log-uniform value for each range."""
    return {
        name: float(np.exp(random.uniform(math.log(low), math.log(high))))
        for name, (low, high) in ranges.items()
    }


def draw_others(seed: int, per_kind: int, kinds: tuple[str, ...]) -> list[OtherServer]:
    """Return servers of these kinds, `per_kind` of each kind and number of cores."""
    random = np.random.default_rng(seed)
    servers = []
    for kind in kinds:
        make, ranges = KINDS[kind]
        for cores in OTHER_CORES:
            for number in range(per_kind):
                drawn = draw_parameters({"noise": _NOISE_RANGE, **ranges}, random)
                drawn |= {name: round(drawn[name]) for name in _INTEGERS & drawn.keys()}
                servers.append(make(f"{kind} {seed}.{number}, {cores} cores", cores, **drawn))
    return servers
