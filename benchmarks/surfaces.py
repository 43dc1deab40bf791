"""The surfaces of the comparison of searches: recorded servers and random machines."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np
import pandas as pd

from benchmarks.kinds import draw_others, draw_parameters
from benchmarks.machine import Machine
from loadgen.rate.estimate import Estimate
from loadgen.rate.short_loop import MAX_SHORT_S, short_loop_s
from search.sampler.observations import Telemetry
from search.spec.dimension import Dimension
from search.spec.space import Space
from search.spec.space_building import build_space
from search.trial.server_probe import ServerProbe, ServerProbeRecord
from servetune.errors import FailureKind
from serving.configuration.config import ServerConfig
from serving.configuration.defaults import torchserve_defaults
from serving.metrics import HandlerTime

RECORDED = Path(__file__).parent / "recorded"
#: The columns of a recorded surface that are settings; the others are measurements.
SURFACE_SETTINGS = ("workers", "batch_size", "max_batch_delay_ms", "mkl_threads")
_RATE_COLUMN = "closed_rps"
#: Random points and the climbs from the best of them that find the optimum of a simulated machine.
_RANDOM_POINTS, _CLIMBS = 400, 4
#: Standard deviation of the telemetry ÷ its mean.
_TELEMETRY_NOISE = 0.03
#: Standard deviation of a probe's log rate beside that of the server's start.
_PROBE_NOISE = 0.05
#: Time that a probe takes beside its closed loop, seconds.
_PROBE_OVERHEAD_S = 0.5

Values = Mapping[str, Any]


class Surface(Protocol):
    """A server's rates by configuration: the true one, and random measurements of it."""

    space: Space

    @property
    def name(self) -> str:
        """Shown in the output."""
        ...

    def true_rps(self, values: Values) -> float:
        """Return the rate without noise, requests/s; 0 if the configuration fails."""
        ...

    def measure(self, values: Values, random: np.random.Generator) -> float:
        """Return the rate of one trial, requests/s; 0 if the configuration fails."""
        ...

    def failure(self, values: Values) -> FailureKind | None:
        """Return the kind of failure; None if a trial reports none."""
        ...

    def telemetry(self, values: Values, random: np.random.Generator) -> Telemetry:
        """Return what the server reports about itself in a trial."""
        ...

    def probe(
        self, values: Values, probe: ServerProbe, level: float, random: np.random.Generator
    ) -> ServerProbeRecord:
        """Return what a probe shows in the running server of a configuration.

        Args:
            level: speed of this start of the server ÷ its mean.
        """
        ...

    @property
    def optimum_rps(self) -> float:
        """The greatest known true rate, requests/s."""
        ...


def _noise(random: np.random.Generator, sd: float) -> float:
    return float(np.exp(random.normal(0, sd)))


def _probe_record(
    probe: ServerProbe, exact_rps: float, time: HandlerTime | None, random: np.random.Generator
) -> ServerProbeRecord:
    if exact_rps <= 0:
        return ServerProbeRecord(
            probe.kind, probe.workers, probe.batch_size, problem="it does not serve"
        )
    seconds = short_loop_s(probe.workers * probe.batch_size / exact_rps)
    if seconds > MAX_SHORT_S:
        return ServerProbeRecord(
            probe.kind, probe.workers, probe.batch_size, problem="its batches take too long"
        )
    rate_rps = exact_rps * _noise(random, _PROBE_NOISE)
    error = 1.96 * _PROBE_NOISE * rate_rps
    capacity = Estimate(rate_rps, rate_rps - error, rate_rps + error, seconds)
    return ServerProbeRecord(
        probe.kind, probe.workers, probe.batch_size, capacity, time, _PROBE_OVERHEAD_S + seconds
    )


@dataclass
class Recorded:
    """Recorded trials of a real server; a measurement is a random one of its configuration."""

    name: str
    space: Space
    rates: Mapping[tuple[Any, ...], Sequence[float]]

    def true_rps(self, values: Values) -> float:
        """Return the median of the recorded rates, requests/s."""
        return median(self.rates[self._key(values)])

    def measure(self, values: Values, random: np.random.Generator) -> float:
        """See `Surface.measure`."""
        return float(random.choice(np.array(self.rates[self._key(values)])))

    def failure(self, values: Values) -> FailureKind | None:
        """Return None: recordings have no kinds of failure."""
        return None

    def telemetry(self, values: Values, random: np.random.Generator) -> Telemetry:
        """Return nothing: recordings have no telemetry."""
        return Telemetry()

    def probe(
        self, values: Values, probe: ServerProbe, level: float, random: np.random.Generator
    ) -> ServerProbeRecord:
        """Return a recorded rate of the probed configuration; no result if it was not recorded."""
        axes = {"workers": probe.workers, "batch_size": probe.batch_size}
        point = {**values, **{name: axes[name] for name in axes.keys() & values.keys()}}
        known = self.rates.get(self._key(point))
        exact_rps = level * float(random.choice(np.array(known))) if known else 0.0
        return _probe_record(probe, exact_rps, None, random)

    @property
    def optimum_rps(self) -> float:
        """See `Surface.optimum_rps`."""
        return max(median(rates) for rates in self.rates.values())

    def _key(self, values: Values) -> tuple[Any, ...]:
        return tuple(values[d.name] for d in self.space.dimensions)


def read_recorded(path: Path) -> Recorded:
    """Read a CSV file with a column for each setting, the rate and the number of failures.

    The host may have been faster in some passes (column `pass`). The rates of each pass are divided
    by their median ratio to the first pass; the remaining difference is noise.

    Raises:
        ValueError: a column is missing, or configurations are not a full grid.
    """
    with path.open() as file:
        rows = list(csv.DictReader(file))
    if not rows or (missing := {*SURFACE_SETTINGS, _RATE_COLUMN, "failures"} - set(rows[0])):
        problem = f"lacks the columns {', '.join(sorted(missing))}" if rows else "has no rows"
        raise ValueError(f"{path} {problem}")
    axes = {name: tuple(sorted({int(row[name]) for row in rows})) for name in SURFACE_SETTINGS}
    varied = {name: axis for name, axis in axes.items() if len(axis) > 1}
    passes: dict[str, dict[tuple[Any, ...], float]] = {}
    for row in rows:
        rate = 0.0 if int(row["failures"]) else float(row[_RATE_COLUMN])
        passes.setdefault(row.get("pass", ""), {})[tuple(int(row[name]) for name in varied)] = rate
    first = next(iter(passes.values()))
    rates: dict[tuple[Any, ...], list[float]] = {}
    for measured in passes.values():
        ratios = [rate / first[key] for key, rate in measured.items() if rate and first.get(key)]
        level = median(ratios) if ratios else 1.0
        for key, rate in measured.items():
            rates.setdefault(key, []).append(rate / level)
    if len(rates) != math.prod(len(axis) for axis in varied.values()):
        raise ValueError(f"{path} has {len(rates)} configurations, not the full grid of {axes}")
    dimensions = tuple(Dimension(name, choices=axis) for name, axis in varied.items())
    cores = max(axes["mkl_threads"])
    return Recorded(path.stem, Space(dimensions, ServerConfig(), cores), rates)


class Server(Protocol):
    """A simulated server."""

    @property
    def name(self) -> str:
        """Shown in the output."""
        ...

    @property
    def noise(self) -> float:
        """Standard deviation of a measurement ÷ its mean."""
        ...

    def sustained_rps(self, config: Values) -> float:
        """Return the rate of a configuration, requests/s; 0 if it fails."""
        ...

    def capacity_rps(self, config: Values) -> float:
        """Return the rate with all workers busy and full batches, requests/s."""
        ...

    def lacks_memory(self, config: Values) -> bool:
        """Return whether a configuration fails for lack of memory."""
        ...

    def telemetry(self, config: Values) -> Telemetry:
        """Return what a trial reports, without noise."""
        ...


@dataclass
class Simulated:
    """A simulated server; its rates are cached.

    Attributes:
        reports_single: whether every trial reports the duration of a single request, or only one
            with a batch size of 1, as real trials do.
    """

    machine: Server
    space: Space
    reports_single: bool = True
    _rates: dict[tuple[Any, ...], float] = field(default_factory=dict)
    _optimum_rps: float = 0.0

    @property
    def name(self) -> str:
        """The machine's name."""
        return self.machine.name

    def true_rps(self, values: Values) -> float:
        """See `Surface.true_rps`."""
        key = tuple(values[d.name] for d in self.space.dimensions)
        if key not in self._rates:
            self._rates[key] = self.machine.sustained_rps(self._settings(values))
        return self._rates[key]

    def measure(self, values: Values, random: np.random.Generator) -> float:
        """See `Surface.measure`."""
        return self.true_rps(values) * float(np.exp(random.normal(0, self.machine.noise)))

    def failure(self, values: Values) -> FailureKind | None:
        """See `Surface.failure`."""
        lacks_memory = self.machine.lacks_memory(self._settings(values))
        return FailureKind.OUT_OF_MEMORY if lacks_memory else None

    def telemetry(self, values: Values, random: np.random.Generator) -> Telemetry:
        """See `Surface.telemetry`."""
        exact = self.machine.telemetry(self._settings(values))

        def noisy(value: float) -> float:
            return value * float(np.exp(random.normal(0, _TELEMETRY_NOISE)))

        times = tuple(
            HandlerTime(time.batch_fill, time.busy_workers, noisy(time.seconds))
            for time in exact.handler_times
            if self.reports_single or time.batch_fill == values.get("batch_size", time.batch_fill)
        )
        memory_mb = exact.memory_mb
        return Telemetry(times, None if memory_mb is None else noisy(memory_mb))

    def probe(
        self, values: Values, probe: ServerProbe, level: float, random: np.random.Generator
    ) -> ServerProbeRecord:
        """See `Surface.probe`."""
        axes = {"workers": probe.workers, "batch_size": probe.batch_size}
        settings = {**self._settings(values), **axes}
        exact_rps = self.machine.capacity_rps(settings)
        # The last one is the batch of the configuration itself.
        time = self.machine.telemetry(settings).handler_times[-1]
        noisy = replace(time, seconds=time.seconds / level * _noise(random, _TELEMETRY_NOISE))
        return _probe_record(probe, level * exact_rps, noisy, random)

    @property
    def optimum_rps(self) -> float:
        """The greatest rate in the ranges of the space, requests/s; call `explore` first."""
        return self._optimum_rps

    def explore(self, seed: int = 0) -> None:
        """Search for the optimum: random points, then the neighbours of the best ones."""
        points = self.space.draw(np.random.default_rng(seed), _RANDOM_POINTS)
        for start in sorted(points, key=self.true_rps)[-_CLIMBS:]:
            best, rate = start, self.true_rps(start)
            while True:
                neighbours = {self.true_rps(point): point for point in self.space.neighbours(best)}
                if max(neighbours) <= rate * 1.001:
                    break
                rate = max(neighbours)
                best = neighbours[rate]
        self._optimum_rps = max(self._rates.values())

    def _settings(self, values: Values) -> dict[str, Any]:
        """Return all settings of a server, the queue by the rule of the product."""
        config = self.space.config(values)
        queue = config.job_queue_size or self.space.defaults["job_queue_size"]
        return {"job_queue_size": queue, **values}


#: By kind of server: the log-uniform ranges of its parameters.
KINDS: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "language model": {"fixed_s": (0.02, 0.2), "each_s": (0.002, 0.02), "spin": (0.3, 4)},
    "small model": {"fixed_s": (0.001, 0.01), "each_s": (0.0005, 0.005)},
    "vision": {"fixed_s": (0.005, 0.02), "each_s": (0.005, 0.05), "spill_s": (1e-6, 1e-4)},
    "fixed cost": {"fixed_s": (0.05, 0.5), "each_s": (0.0002, 0.002)},
    "waits": {"fixed_s": (0.02, 0.2), "each_s": (0.001, 0.01), "waits": (0.5, 0.9)},
    "accelerator": {
        "fixed_s": (0.004, 0.02),
        "each_s": (0.0001, 0.001),
        "device": (0.6, 0.95),
        "streams": (1, 3),
    },
    "front end": {
        "fixed_s": (0.0003, 0.002),
        "each_s": (0.00003, 0.0003),
        "netty_s": (3e-4, 1e-3),
        "client_s": (2e-4, 6e-4),
    },
    "memory": {
        "fixed_s": (0.01, 0.1),
        "each_s": (0.003, 0.02),
        "worker_mb": (1000, 3000),
        "item_mb": (10, 60),
    },
}
#: Ranges of the parameters of all kinds.
_COMMON_RANGES = {
    "parallel": (0.3, 0.95),
    "spin": (0.1, 1.5),
    "netty_s": (1e-4, 4e-4),
    "client_s": (5e-5, 2e-4),
    "noise": (0.03, 0.1),
}
_CORES = (2, 4, 8, 16, 32)
_MB_PER_CORE = 1500.0


def draw_machines(seed: int, per_kind: int = 3) -> list[Simulated]:
    """Return `per_kind` machines of each kind, drawn at random."""
    random = np.random.default_rng(seed)
    machines = []
    for kind, ranges in KINDS.items():
        for number in range(per_kind):
            drawn = draw_parameters({**_COMMON_RANGES, **ranges}, random)
            if "streams" in drawn:
                drawn["streams"] = round(drawn["streams"])
            cores = int(random.choice(_CORES))
            name = f"{kind} {seed}.{number}, {cores} cores"
            machine = Machine(name, cores, memory_mb=_MB_PER_CORE * cores + 4000, **drawn)
            machines.append(Simulated(machine, build_space({}, cores, sizes_queue=True)))
    return machines


def draw_other_kinds(seed: int, per_kind: int, kinds: Sequence[str]) -> list[Simulated]:
    """Return servers whose rate does not follow the sampler's formula, drawn at random.

    Args:
        per_kind: machines of each kind and number of cores.
        kinds: names in `kinds.KINDS`.
    """
    return [
        Simulated(server, build_space({}, server.cores, sizes_queue=True))
        for server in draw_others(seed, per_kind, tuple(kinds))
    ]


#: A machine for each recorded surface, with parameters fitted by hand.
FITTED_MACHINES: Mapping[str, Machine] = {
    "calls-2core": Machine(
        "calls", 2, 0.05, 0.0068, parallel=0.35, waits=0.99, netty_s=1.4e-3, client_s=7e-4
    ),
    "classifier-2core": Machine(
        "classifier", 2, 4e-3, 5.2e-3, parallel=0.054, spin=0.13, waits=0.1, netty_s=7e-4
    ),
    "codegen-2core": Machine("codegen", 2, 0.06, 0.0058, parallel=0.7, spin=4.0),
    "fixed-2core": Machine("fixed", 2, 0.1, 0.0005, parallel=0.37, spin=0.37, netty_s=1.4e-3),
    "memory-2core": Machine(
        "memory", 2, 3e-4, 0.001, fault_s=0.0066, parallel=0.59, spin=2.7, netty_s=1.4e-4
    ),
    "waits-2core": Machine(
        "waits", 2, 0.039, 0.0021, parallel=0.35, waits=0.99, netty_s=1.4e-3, client_s=7e-4
    ),
}


def rank_correlation(recorded: Recorded, machine: Machine) -> float:
    """Return Spearman's correlation of a machine's rates with the recorded ones."""
    defaults = {**torchserve_defaults(machine.cores), "job_queue_size": 1000}
    names = [d.name for d in recorded.space.dimensions]
    points = [dict(zip(names, key, strict=True)) for key in recorded.rates]
    rates = pd.DataFrame(
        {
            "recorded": [recorded.true_rps(point) for point in points],
            "simulated": [machine.sustained_rps({**defaults, **point}) for point in points],
        }
    )
    ranks = rates.rank().to_numpy()
    return float(np.corrcoef(ranks.T)[0, 1])
