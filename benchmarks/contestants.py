"""Search algorithms with a common interface, servetune's included: ask, tell, choose."""

from __future__ import annotations

import itertools
import logging
import math
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Protocol

import optuna
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import Trial
from scipy.stats.qmc import Sobol

from search.environment import log_level
from search.sampler.observations import Telemetry
from search.sampler.sampler import distributions
from search.spec.dimension import Dimension
from search.spec.sections import SearchSection
from search.spec.space import Space
from search.study.store import StudyStore
from search.trial.request import TrialRequest
from search.trial.result import RateRecord, ServerRecord, TrialResult, TrialState
from search.trial.server_probe import ServerProbe, ServerProbeRecord
from servetune.errors import FailureKind
from serving.configuration.config import ServerConfig

Values = Mapping[str, Any]
#: Rate of the closed loop ÷ sustained rate, as a pruned trial measures it.
_CAPACITY_RATIO = 1.05
NO_TELEMETRY = Telemetry()
_MIN_IMPROVEMENT_PROBABILITY = SearchSection().min_improvement_probability


class Contestant(Protocol):
    """A search in progress."""

    def ask(self) -> Values | None:
        """Return the next point; None if there is none."""
        ...

    def tell(
        self,
        rate_rps: float,
        failure: FailureKind | None = None,
        telemetry: Telemetry = NO_TELEMETRY,
        probed: Sequence[ServerProbeRecord] = (),
    ) -> TrialState:
        """Record the measured rate of the last point, 0 for a failure; return how the trial ended.

        A trial that is slower than the best so far is pruned.
        """
        ...

    def choice(self) -> Values | None:
        """Return the point to choose after the trials so far; None before a success."""
        ...


class GeneratorContestant:
    """A search as a generator of points that receives rates; chooses the greatest rate."""

    def __init__(self, search: Generator[Values, float, None]):
        self._search, self._asked = search, next(search, None)
        self._best: tuple[float, Values] | None = None

    def ask(self) -> Values | None:
        """See `Contestant.ask`."""
        return self._asked

    def tell(
        self,
        rate_rps: float,
        failure: FailureKind | None = None,
        telemetry: Telemetry = NO_TELEMETRY,
        probed: Sequence[ServerProbeRecord] = (),
    ) -> TrialState:
        """See `Contestant.tell`."""
        assert self._asked is not None
        state = TrialState.PRUNED if rate_rps > 0 else TrialState.FAILED
        if rate_rps > 0 and (self._best is None or rate_rps > self._best[0]):
            self._best = rate_rps, self._asked
            state = TrialState.COMPLETE
        try:
            self._asked = self._search.send(rate_rps)
        except StopIteration:
            self._asked = None
        return state

    def choice(self) -> Values | None:
        """See `Contestant.choice`."""
        return self._best[1] if self._best else None


def starting_points(space: Space) -> list[dict[str, Any]]:
    """Return the starting points: TorchServe's default and the recommended ones."""
    points = [space.nearest_point(), *space.recommended_points()]
    return [point for i, point in enumerate(points) if point not in points[:i]]


def after_starting_points(
    search: Callable[[list[Values], list[float]], Generator[Values, float, None]], space: Space
) -> Generator[Values, float, None]:
    """Measure the starting points, then continue with a search that receives their rates."""
    points: list[Values] = list(starting_points(space))
    rates: list[float] = []
    for point in points:
        rates.append((yield point))
    yield from search(points, rates)


def optuna_search(
    sampler: BaseSampler, space: Space, log_rates: bool = False, starts: bool = True
) -> Generator[Values, float, None]:
    """Search with one of Optuna's samplers.

    Args:
        log_rates: report the log of a rate, and −1 for a failure.
        starts: whether to begin with the starting points.
    """
    with log_level(["optuna"], logging.WARNING):
        study = optuna.create_study(direction="maximize", sampler=sampler)
    if starts:
        for point in starting_points(space):
            study.enqueue_trial(point)
    search_space = distributions(space)
    while True:
        trial = study.ask(search_space)
        rate = yield trial.params
        study.tell(trial, (math.log(rate) if rate > 0 else -1.0) if log_rates else rate)


def quasi_random(space: Space, seed: int) -> Generator[Values, float, None]:
    """Search a scrambled Sobol sequence, as Optuna's QMCSampler does."""
    engine = Sobol(len(space.dimensions), seed=seed)
    while True:
        unit = engine.random(1)[0]
        yield {d.name: _value_at(d, float(u)) for d, u in zip(space.dimensions, unit, strict=True)}


def _value_at(d: Dimension, u: float) -> Any:
    """Return the value of a dimension at u in [0, 1) of its scale."""
    if d.choices:
        return d.choices[int(u * len(d.choices))]
    if d.log:
        return min(int(d.low * ((d.high + 1) / d.low) ** u), d.high)
    return d.low + int(u * (d.high + 1 - d.low))


def grid(space: Space) -> Generator[Values, float, None]:
    """Search as TorchServe's benchmarks/auto_benchmark.py: batch sizes for each number of workers.

    Both double from 1, as in its template; other settings keep their defaults.
    Source: benchmarks/benchmark_config_template.yaml and auto_benchmark.py of 0.12.0.
    """
    sizes = [2**power for power in range(8)]
    workers = [2**power for power in range(8) if 2**power <= 2 * space.cores]
    points = []
    for count, size in itertools.product(workers, sizes):
        if (point := space.nearest_point(workers=count, batch_size=size)) not in points:
            points.append(point)
            yield point


def hill_climbing(
    space: Space, points: Sequence[Values] = (), rates: Sequence[float] = ()
) -> Generator[Values, float, None]:
    """Search as Model Analyzer's quick search: climb in doubling steps from the smallest values.

    If points are given, the climb begins at the step nearest to the best of them.

    At each position, the neighbours one step up are measured. The search then moves along all
    dimensions that improved the rate for as long as the rate increases. If no neighbour is better,
    it measures the neighbours one step down.
    Source: docs/config_search.md of triton-inference-server/model_analyzer.
    """
    ladders = {d.name: d.choices or _doubling(d.low, d.high) for d in space.dimensions}
    measured: dict[tuple[int, ...], float] = {}

    def values(position: Sequence[int]) -> dict[str, Any]:
        return {name: ladders[name][i] for name, i in zip(ladders, position, strict=True)}

    def moved(position: Sequence[int], steps: Sequence[int]) -> tuple[int, ...]:
        tops = [len(ladder) - 1 for ladder in ladders.values()]
        return tuple(
            min(max(i + step, 0), top) for i, step, top in zip(position, steps, tops, strict=True)
        )

    def rate(position: tuple[int, ...]) -> Generator[Values, float, float]:
        if position not in measured:
            measured[position] = yield values(position)
        return measured[position]

    position = tuple(0 for _ in ladders)
    if any(rates):
        best = points[max(range(len(rates)), key=lambda i: rates[i])]
        position = tuple(
            min(range(len(ladder)), key=lambda i: _distance(ladder[i], best[name]))
            for name, ladder in ladders.items()
        )
    position_rps = yield from rate(position)
    while True:
        for direction in (1, -1):
            steps = []
            for index in range(len(ladders)):
                unit = [direction * (i == index) for i in range(len(ladders))]
                neighbour_rps = yield from rate(moved(position, unit))
                steps.append(direction * int(neighbour_rps > position_rps))
            start = position
            while any(steps) and (target := moved(position, steps)) != position:
                if (target_rps := (yield from rate(target))) <= position_rps:
                    break
                position, position_rps = target, target_rps
            if position == start and any(steps):
                # All steps together reduce the rate: take the best single one.
                neighbours = [
                    moved(position, [step * (i == index) for i in range(len(ladders))])
                    for index, step in enumerate(steps)
                ]
                position = max(neighbours, key=lambda p: measured.get(p, 0.0))
                position_rps = measured[position]
            if position != start:
                break
        else:
            return


def _distance(a: Any, b: Any) -> float:
    """Return the distance of two values: the ratio of numbers, or whether others differ."""
    if isinstance(a, int | float) and isinstance(b, int | float) and a > 0 and b > 0:
        return abs(math.log(a / b))
    return float(a != b)


def _doubling(low: int, high: int) -> list[int]:
    """Return low, 2 × low, 4 × low … up to high."""
    steps = [low]
    while steps[-1] * 2 <= high:
        steps.append(steps[-1] * 2)
    return steps


class Servetune:
    """servetune's study, with results as its trials report them."""

    def __init__(self, space: Space, seed: int, may_probe: bool = False):
        self._may_probe = may_probe
        self.store = StudyStore(space, InMemoryStorage(), "contest", seed)
        self.store.begin()
        self._asked: tuple[Trial, TrialRequest] | None = None

    def ask(self) -> Values | None:
        """See `Contestant.ask`."""
        self._asked = self.store.ask(self._may_probe)
        return self._values(self._asked[1].config) if self._asked else None

    def tell(
        self,
        rate_rps: float,
        failure: FailureKind | None = None,
        telemetry: Telemetry = NO_TELEMETRY,
        probed: Sequence[ServerProbeRecord] = (),
    ) -> TrialState:
        """See `Contestant.tell`."""
        assert self._asked is not None
        trial, request = self._asked
        state = TrialState.COMPLETE
        if rate_rps <= 0:
            state = TrialState.FAILED
        elif request.incumbent_rps is not None and rate_rps < request.incumbent_rps:
            state = TrialState.PRUNED
        self.store.tell(
            trial,
            TrialResult(
                number=request.number,
                origin=request.origin,
                config=request.config,
                state=state,
                failure=failure,
                rate=RateRecord(
                    sustained_rps=rate_rps if state is TrialState.COMPLETE else None,
                    capacity_rps=_CAPACITY_RATIO * rate_rps or None,
                    width=0.05,
                ),
                server=_server_record(telemetry),
                server_probes=tuple(probed),
            ),
        )
        return state

    @property
    def probes(self) -> tuple[ServerProbe, ...]:
        """The probes of the trial that was asked for."""
        return self._asked[1].server_probes if self._asked else ()

    def has_converged(self) -> bool:
        """Return whether the search would end: another trial is unlikely to improve the rate."""
        probability = self.store.improvement_probability()
        return probability is not None and probability < _MIN_IMPROVEMENT_PROBABILITY

    def choice(self) -> Values | None:
        """See `Contestant.choice`."""
        nominees = self.store.model.nominees(1)
        return self._values(nominees[0]) if nominees else None

    def _values(self, config: ServerConfig) -> Values:
        values = self.store.space.values(config)
        # TorchServe's default may be outside of the space.
        return values if values is not None else self.store.space.nearest_point()


def _server_record(telemetry: Telemetry) -> ServerRecord:
    """Return telemetry as a trial records it."""
    memory_mb = telemetry.memory_mb
    return ServerRecord(
        handler_times=telemetry.handler_times,
        peak_memory_mb=None if memory_mb is None else round(memory_mb),
    )


def _optuna(
    make: Callable[[int], BaseSampler], log_rates: bool = False, starts: bool = True
) -> Callable[[Space, int], Contestant]:
    def contestant(space: Space, seed: int) -> Contestant:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return GeneratorContestant(optuna_search(make(seed), space, log_rates, starts))

    return contestant


def _tpe(seed: int) -> BaseSampler:
    options: dict[str, Any] = {"multivariate": True, "group": True, "constant_liar": True}
    return TPESampler(seed=seed, n_startup_trials=5, **options)


def _after_starts(
    search: Callable[
        [Space, int, Sequence[Values], Sequence[float]], Generator[Values, float, None]
    ],
) -> Callable[[Space, int], Contestant]:
    def contestant(space: Space, seed: int) -> Contestant:
        return GeneratorContestant(
            after_starting_points(lambda points, rates: search(space, seed, points, rates), space)
        )

    return contestant


def _probing(space: Space, seed: int) -> Servetune:
    return Servetune(space, seed, may_probe=True)


OURS, PROBING = "servetune", "servetune with probes"
GP, CMA_ES = "Optuna GP", "Optuna CMA-ES"
#: By name: starts a search of a space with a seed. All but `random` begin with the starting points.
CONTESTANTS: Mapping[str, Callable[[Space, int], Contestant]] = {
    OURS: Servetune,
    PROBING: _probing,
    "random": _optuna(lambda seed: RandomSampler(seed=seed), starts=False),
    "starting points + random": _optuna(lambda seed: RandomSampler(seed=seed)),
    "quasi-random": _after_starts(lambda space, seed, points, rates: quasi_random(space, seed)),
    "auto_benchmark's grid": _after_starts(lambda space, seed, points, rates: grid(space)),
    "hill climbing": _after_starts(
        lambda space, seed, points, rates: hill_climbing(space, points, rates)
    ),
    "Optuna TPE": _optuna(_tpe),
    GP: _optuna(lambda seed: GPSampler(seed=seed, n_startup_trials=5), log_rates=True),
    CMA_ES: _optuna(lambda seed: CmaEsSampler(seed=seed, n_startup_trials=5), log_rates=True),
}
#: Contestants that search only if they are named.
OPTIONAL = (PROBING,)
#: Contestants that search only a subset of the surfaces: a proposal of GP takes up to a second.
SLOW = (GP,)
