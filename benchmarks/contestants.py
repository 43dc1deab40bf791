"""Ways to search a space, servetune's own among them, behind one face: ask, tell, choose."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Protocol

import optuna
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import Trial
from scipy.stats.qmc import Sobol

from search.spec.space import Dimension, Space
from search.study.sampler import distributions
from search.study.store import StudyStore
from search.trial.request import TrialRequest
from search.trial.result import RateRecord, TrialResult, TrialState
from servetune.errors import FailureKind
from serving.config import ServerConfig

Values = Mapping[str, Any]
#: A pruned trial knows the closed loop's rate, which is off by about this much.
_CAPACITY_OVER = 1.05


class Contestant(Protocol):
    """One search in progress."""

    def ask(self) -> Values | None:
        """The next point; None where it has no more."""
        ...

    def tell(self, rate_rps: float, failure: FailureKind | None) -> None:
        """What came of it: 0 where it failed, and what it said of that."""
        ...

    def choice(self) -> Values | None:
        """The point that it would choose now."""
        ...


class Walk:
    """Any walk, with the greatest rate that it saw as its choice."""

    def __init__(self, walk: Generator[Values, float, None]):
        self._walk, self._asked = walk, next(walk, None)
        self._best: tuple[float, Values] | None = None

    def ask(self) -> Values | None:
        """See `Contestant.ask`."""
        return self._asked

    def tell(self, rate_rps: float, failure: FailureKind | None) -> None:
        """See `Contestant.tell`."""
        assert self._asked is not None
        if rate_rps > 0 and (self._best is None or rate_rps > self._best[0]):
            self._best = rate_rps, self._asked
        try:
            self._asked = self._walk.send(rate_rps)
        except StopIteration:
            self._asked = None

    def choice(self) -> Values | None:
        """See `Contestant.choice`."""
        return self._best[1] if self._best else None


def first_points(space: Space) -> list[dict[str, Any]]:
    """TorchServe's default and its guide's points: what whoever takes first points begins with."""
    points = [space.nearest_point(), *space.recommended_points()]
    return [point for i, point in enumerate(points) if point not in points[:i]]


def by_optuna(sampler: BaseSampler, space: Space) -> Generator[Values, float, None]:
    """One of Optuna's samplers as it comes."""
    study = optuna.create_study(direction="maximize", sampler=sampler)
    if not isinstance(sampler, RandomSampler):
        for point in first_points(space):
            study.enqueue_trial(point)
    searched = distributions(space)
    while True:
        trial = study.ask(searched)
        study.tell(trial, (yield trial.params))


def quasi_random(space: Space, seed: int) -> Generator[Values, float, None]:
    """Sobol's points, scrambled, as Optuna's QMCSampler takes them too."""
    engine = Sobol(len(space.dimensions), seed=seed)
    while True:
        place = engine.random(1)[0]
        yield {d.name: _at(d, float(u)) for d, u in zip(space.dimensions, place, strict=True)}


def _at(dimension: Dimension, u: float) -> Any:
    """The value at this share of a dimension's own scale."""
    d = dimension
    if d.choices:
        return d.choices[int(u * len(d.choices))]
    if d.log:
        return min(int(d.low * ((d.high + 1) / d.low) ** u), d.high)
    return d.low + int(u * (d.high + 1 - d.low))


def grid(space: Space) -> Generator[Values, float, None]:
    """As TorchServe's benchmarks/auto_benchmark.py: workers, and batch sizes within.

    Its template doubles both from 1; everything else stays as it is.
    Source: benchmarks/benchmark_config_template.yaml and auto_benchmark.py of 0.12.0.
    """
    sizes = [2**power for power in range(8)]
    workers = [2**power for power in range(8) if 2**power <= 2 * space.cores]
    seen = []
    for count, size in itertools.product(workers, sizes):
        if (point := space.nearest_point(workers=count, batch_size=size)) not in seen:
            seen.append(point)
            yield point


def hill_climbing(space: Space) -> Generator[Values, float, None]:
    """As Model Analyzer's quick search: from the least of everything in doubling steps.

    At each place the neighbours one step up are tried, a step is taken along all that were better,
    as long as it leads up; where none is better, the neighbours one step down are tried too.
    Source: docs/config_search.md of triton-inference-server/model_analyzer.
    """
    ladders = {d.name: d.choices or _doubling(d.low, d.high) for d in space.dimensions}
    known: dict[tuple[int, ...], float] = {}
    at = tuple(0 for _ in ladders)

    def values(place: Sequence[int]) -> dict[str, Any]:
        return {name: ladders[name][i] for name, i in zip(ladders, place, strict=True)}

    def moved(place: Sequence[int], steps: Sequence[int]) -> tuple[int, ...]:
        tops = [len(ladder) - 1 for ladder in ladders.values()]
        return tuple(
            min(max(i + step, 0), top) for i, step, top in zip(place, steps, tops, strict=True)
        )

    def rate(place: tuple[int, ...]) -> Generator[Values, float, float]:
        if place not in known:
            known[place] = yield values(place)
        return known[place]

    here = yield from rate(at)
    while True:
        for direction in (1, -1):
            better = []
            for index in range(len(ladders)):
                unit = [direction * (i == index) for i in range(len(ladders))]
                better.append(direction * int((yield from rate(moved(at, unit))) > here))
            start = at
            while any(better) and (place := moved(at, better)) != at:
                if (there := (yield from rate(place))) <= here:
                    break
                at, here = place, there
            if at == start and any(better):
                # Together they lead down: the best one alone.
                units = [
                    moved(at, [step * (i == index) for i in range(len(ladders))])
                    for index, step in enumerate(better)
                ]
                at = max(units, key=lambda place: known.get(place, 0.0))
                here = known[at]
            if at != start:
                break
        else:
            return


def _doubling(low: int, high: int) -> list[int]:
    steps = [low]
    while steps[-1] * 2 <= high:
        steps.append(steps[-1] * 2)
    return steps


class Servetune:
    """The product's own study, told as its trials tell it."""

    def __init__(self, space: Space, seed: int):
        self._study = StudyStore(space, InMemoryStorage(), "contest", seed)
        self._study.begin()
        self._asked: tuple[Trial, TrialRequest] | None = None

    def ask(self) -> Values | None:
        """See `Contestant.ask`."""
        self._asked = self._study.ask()
        return self._values(self._asked[1].config) if self._asked else None

    def tell(self, rate_rps: float, failure: FailureKind | None) -> None:
        """See `Contestant.tell`."""
        assert self._asked is not None
        trial, request = self._asked
        state, sustained = TrialState.COMPLETE, rate_rps
        if rate_rps <= 0:
            state = TrialState.FAILED
        elif request.incumbent_rps is not None and rate_rps < request.incumbent_rps:
            state = TrialState.PRUNED
        self._study.tell(
            trial,
            TrialResult(
                number=request.number,
                origin=request.origin,
                config=request.config,
                state=state,
                failure=failure,
                rate=RateRecord(
                    sustained_rps=sustained if state is TrialState.COMPLETE else None,
                    capacity_rps=_CAPACITY_OVER * rate_rps or None,
                    width=0.05,
                ),
            ),
        )

    def choice(self) -> Values | None:
        """See `Contestant.choice`."""
        best = self._study.best
        return self._values(best.config) if best else None

    def _values(self, config: ServerConfig) -> Values:
        values = self._study.space.values(config)
        # TorchServe's default may lie outside: the surface knows its nearest point.
        return values if values is not None else self._study.space.nearest_point()


def _optuna(make: Callable[[int], BaseSampler]) -> Callable[[Space, int], Contestant]:
    def contestant(space: Space, seed: int) -> Contestant:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return Walk(by_optuna(make(seed), space))

    return contestant


OURS = "servetune"
#: By name: how one begins on a space, with a seed.
CONTESTANTS: Mapping[str, Callable[[Space, int], Contestant]] = {
    OURS: Servetune,
    "random": _optuna(lambda seed: RandomSampler(seed=seed)),
    "quasi-random": lambda space, seed: Walk(quasi_random(space, seed)),
    "auto_benchmark's grid": lambda space, seed: Walk(grid(space)),
    "hill climbing": lambda space, seed: Walk(hill_climbing(space)),
    "Optuna's TPE": _optuna(lambda seed: TPESampler(seed=seed)),
    "Optuna's GP": _optuna(lambda seed: GPSampler(seed=seed)),
}
#: A run of this one takes much time: so many of them.
SEEDS = {"Optuna's GP": 5}
#: A proposal of this one takes up to a second: so many trials, and one machine of each kind.
SLOW = {"Optuna's GP": 20}
