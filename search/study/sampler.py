"""What to try next: a model of a server's capacity, and a Gaussian process for what it misses.

The model is how batches and threads share cores: workers × batch ÷ (fixed + each × batch), on
threads that divide a part of the work (Amdahl) and get in each other's way where they outnumber
the cores. Its parameters, and the process's, are drawn from their posterior (Metropolis), so that
what few trials leave open stays open. The next trial has the greatest expected improvement.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.special
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study as OptunaStudy
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaTrialState

from search.spec.space import Space, torchserve_defaults

Floats = npt.NDArray[np.float64]

#: Mean and standard deviation of each parameter's normal prior, and its meaning.
_PRIORS = (
    (math.log(0.1), 2.0),  # log of a batch's cost for each item ÷ its fixed cost
    (1.0, 1.5),  # logit of the share of the work that threads divide
    (-0.7, 1.0),  # log of how much worse than fair sharing too many threads are
    (-2.0, 2.0),  # logit of the share of the work that needs no core
    (math.log(8), 1.5),  # log of how many batches that share takes at once: an accelerator's
    (math.log(0.25), 0.7),  # log of the process's standard deviation
    (math.log(0.06), 0.4),  # log of the measurements'
)
_PROCESS, _NOISE = len(_PRIORS) - 2, len(_PRIORS) - 1
#: log of the process's length in a dimension of size 1: of what the model tells of, of others.
_LENGTH, _LONG = (math.log(0.7), 0.7), (math.log(2.0), 0.7)
_MODELLED = ("workers", "batch_size", "mkl_threads")
_STEPS, _KEPT = 120, 4
_RANDOM, _REFINED, _ROUNDS = 300, 3, 3
#: Of many trials so many are fitted.
_KNOWN = 64


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The space as Optuna has it."""
    return {
        d.name: CategoricalDistribution(d.choices)
        if d.choices
        else IntDistribution(d.low, d.high, log=d.log)
        for d in space.dimensions
    }


class CapacitySampler(BaseSampler):
    """Optuna's face of the model.

    Args:
        space: all that may be proposed.
        seed: of every chance.
    """

    def __init__(self, space: Space, seed: int):
        self._space, self._random = space, np.random.default_rng(seed)
        self._distributions = distributions(space)
        self._independent = RandomSampler(seed=seed)
        self._state: Floats | None = None

    def infer_relative_search_space(
        self, study: OptunaStudy, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The whole space, from the first trial on; nothing where the point is given."""
        return {} if "fixed_params" in trial.system_attrs else self._distributions

    def sample_relative(
        self, study: OptunaStudy, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next point."""
        if not search_space:
            return {}
        states = (OptunaTrialState.COMPLETE, OptunaTrialState.RUNNING)
        every = study.get_trials(deepcopy=False, states=states)
        placed = [t for t in every if t.params.keys() == search_space.keys()]
        told = [t for t in placed if t.state is OptunaTrialState.COMPLETE]
        running = [t.params for t in placed if t.state is OptunaTrialState.RUNNING]
        missed = [any(value > 0 for value in t.constraints.values()) for t in told]
        too_large = [bool(t.user_attrs.get("too_large", False)) for t in told]
        rates = [t.value or 0.0 for t in told]
        return self.propose([t.params for t in told], rates, missed, too_large, running)

    def sample_independent(
        self,
        study: OptunaStudy,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A setting that a given point lacks."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def propose(
        self,
        points: Sequence[Mapping[str, Any]],
        rates: Sequence[float],
        missed: Sequence[bool] = (),
        too_large: Sequence[bool] = (),
        running: Sequence[Mapping[str, Any]] = (),
    ) -> dict[str, Any]:
        """The point to try after these.

        Args:
            rates: what they came to; 0 is a failure.
            missed: which of them missed a constraint, and may have failed by that alone.
            too_large: which of them failed for want of memory.
            running: points that are being tried; they count as middling until they are known.
        """
        if running and any(rates):
            no = [False] * len(running)
            points = [*points, *running]
            rates = [*rates, *[median(rate for rate in rates if rate > 0)] * len(running)]
            missed = [*missed, *no] if missed else missed
            too_large = [*too_large, *no] if too_large else too_large
        space, chance = self._space, self._random
        good = [i for i, rate in enumerate(rates) if rate > 0]
        if not good:
            return space.draw(chance, 1)[0]
        best = points[max(good, key=lambda i: rates[i])]
        if len(good) > _KNOWN:
            # What a fit costs grows with their number's cube: the best and the newest tell most.
            leaders = sorted(good, key=lambda i: -rates[i])[: _KNOWN // 2]
            good = sorted({*leaders, *good[-_KNOWN // 2 :]})
        known = _Points(space, [points[i] for i in good])
        model = _Model(known, np.log([rates[i] for i in good]))
        samples, self._state = model.posterior(chance, self._state)
        served, no = np.array(rates) > 0, [False] * len(points)
        feasible = _Feasible(
            _Points(space, points), served, np.array(missed or no), np.array(too_large or no)
        )
        tried = {tuple(point[d.name] for d in space.dimensions) for point in points}

        def worth(candidates: list[dict[str, Any]]) -> Floats:
            there = _Points(space, candidates)
            return model.improvement(samples, there) * feasible.chance(there)

        candidates = space.draw(chance, _RANDOM)
        # What the model tells of is best moved together, the rest as it is.
        modelled = [{n: v for n, v in c.items() if n in _MODELLED} for c in candidates]
        candidates += [{**best, **values} for values in modelled]
        candidates += space.neighbours(best)
        seen: dict[tuple[Any, ...], tuple[float, dict[str, Any]]] = {}
        for _ in range(_ROUNDS):
            fresh = {tuple(c[d.name] for d in space.dimensions): c for c in candidates}
            fresh = {key: c for key, c in fresh.items() if key not in tried and key not in seen}
            if not fresh:
                break
            for (key, c), value in zip(fresh.items(), worth(list(fresh.values())), strict=True):
                seen[key] = float(value), c
            top = sorted(seen.values(), key=lambda each: -each[0])[:_REFINED]
            candidates = [near for _, point in top for near in space.neighbours(point)]
        return max(seen.values(), key=lambda each: each[0])[1] if seen else space.draw(chance, 1)[0]


class _Points:
    """Points as the model sees them: unit coordinates, and workers, batch and threads."""

    def __init__(self, space: Space, points: Sequence[Mapping[str, Any]]):
        usual = torchserve_defaults(space.cores)
        self.cores = space.cores
        columns: list[Any] = []
        self.names: list[str] = []
        for d in space.dimensions:
            raw = [point[d.name] for point in points]
            if d.choices and not all(isinstance(c, int | float) and c > 0 for c in d.choices):
                columns += [np.array([float(value == c) for value in raw]) for c in d.choices[1:]]
                self.names += [d.name] * (len(d.choices) - 1)
                continue
            low, high = (min(d.choices), max(d.choices)) if d.choices else (d.low, d.high)
            at = np.array(raw, float)
            if low > 0:
                columns.append(np.log(at / low) / math.log(high / low))
            else:
                columns.append((at - low) / (high - low))
            self.names += [d.name] * (len(columns) - len(self.names))
        self.unit = np.array(columns)

        def named(name: str) -> Floats:
            fixed = getattr(space.common, name, None) or usual[name]
            return np.array([point.get(name, fixed) for point in points], float)

        self.workers, self.batch = named("workers"), named("batch_size")
        self.threads = named("mkl_threads")
        self.threads_at_work = np.minimum(self.threads, self.cores)
        self.has_threads = (self.threads > 1).astype(float)


class _Model:
    def __init__(self, known: _Points, logs: Floats):
        self._known, self._logs = known, logs
        self._apart = (known.unit[:, :, None] - known.unit[:, None, :]) ** 2
        priors = [*_PRIORS, *[_LENGTH if name in _MODELLED else _LONG for name in known.names]]
        self._mean, self._sd = (np.array(column) for column in zip(*priors, strict=True))

    def posterior(self, chance: np.random.Generator, state: Floats | None) -> tuple[Any, Floats]:
        """Draw parameters; each with what is needed to predict by them."""
        at = self._mean if state is None else state
        score, fitted = self._fit(at)
        kept = []
        for step in range(_STEPS):
            moved = at + 0.5 * self._sd * chance.normal(size=len(at)) * (
                chance.random(len(at)) < 3 / len(at)
            )
            other, other_fitted = self._fit(moved)
            if math.log(chance.random() + 1e-300) < other - score:
                at, score, fitted = moved, other, other_fitted
            if step >= _STEPS // 2 and step % (_STEPS // 2 // _KEPT) == 0:
                factor, *rest = fitted
                kept.append((at, _inverse(factor), *rest))
        return kept, at

    def improvement(self, samples: Any, there: _Points) -> Floats:
        """By how much each point is expected to beat the best known, in logarithms."""
        apart = (there.unit[:, :, None] - self._known.unit[:, None, :]) ** 2
        total = np.zeros(there.unit.shape[1])
        for at, inverse, weights, offset, best in samples:
            cross = _kernel(at, apart)
            mean = offset + _capacity(at, there) + cross @ weights
            variance = math.exp(2 * at[_PROCESS]) - ((cross @ inverse) * cross).sum(axis=1)
            sd = np.sqrt(np.maximum(variance, 1e-10))
            ahead = (mean - best) / sd
            total += sd * (_density(ahead) + ahead * _below(ahead))
        return total

    def _fit(self, at: Floats) -> tuple[float, tuple[Floats, Floats, float, float]]:
        kernel = _kernel(at, self._apart)
        covariance = kernel.copy()
        covariance.flat[:: len(kernel) + 1] += math.exp(2 * at[_NOISE])
        factor, _ = scipy.linalg.lapack.dpotrf(covariance, lower=1)
        structure = _capacity(at, self._known)
        left = self._logs - structure
        both = np.ones((len(left), 2))
        both[:, 0] = left
        solved, _ = scipy.linalg.lapack.dpotrs(factor, both, lower=1)
        offset = float(solved[:, 0].sum() / solved[:, 1].sum())
        left = left - offset
        weights: Floats = solved[:, 0] - offset * solved[:, 1]
        determinant = 2 * float(np.log(factor.diagonal()).sum())
        prior = float((((at - self._mean) / self._sd) ** 2).sum())
        best = float((offset + structure + kernel @ weights).max())
        score = -0.5 * float(left @ weights + determinant + prior)
        return score, (factor, weights, offset, best)


class _Feasible:
    """How likely a point is to serve at all.

    What is too large for the host's memory has workers × (1 + ratio × batch) above a limit, which
    lies between the largest that served and the smallest that was too large; what an item takes
    ÷ what a worker takes is one of many ratios, those count that the failures agree with.
    Otherwise neighbours tell, by doublings of workers, batch and threads.
    """

    _NEAR = 0.7
    _RATIOS = np.geomspace(1e-3, 10.0, 15)
    #: Nothing is known to serve: it may as well be this much smaller.
    _FAR = math.log(1000)

    def __init__(
        self,
        known: _Points,
        served: npt.NDArray[np.bool_],
        missed: npt.NDArray[np.bool_],
        too_large: npt.NDArray[np.bool_],
    ):
        others = ~too_large  # Neighbours of what is too large may be small enough.
        if not too_large.any():
            too_large = ~served & ~missed  # No failure gave a reason: it may be this one.
        self._served, self._places = (served & ~missed)[others], self._doublings(known)[:, others]
        sizes = self._sizes(known)
        self._above = np.min(sizes, axis=1, where=too_large, initial=math.inf)
        below = np.max(sizes, axis=1, where=served, initial=-math.inf)
        agrees = below < self._above
        self._weights = np.where(agrees, 1.0, 1e-3)
        self._below = np.where(agrees, np.maximum(below, self._above - self._FAR), -math.inf)

    def chance(self, there: _Points) -> Floats:
        apart = self._doublings(there)[:, :, None] - self._places[:, None, :]
        near = np.exp(-(apart**2).sum(axis=0) / (2 * self._NEAR**2))
        served: Floats = (near @ self._served + 0.5) / (near.sum(axis=1) + 0.5)
        if math.isinf(self._above[0]):
            return served
        above, below = self._above[:, None], self._below[:, None]
        fits = np.clip((above - self._sizes(there)) / np.maximum(above - below, 1e-9), 0.0, 1.0)
        chances: Floats = served * (self._weights @ fits) / self._weights.sum()
        return chances

    def _sizes(self, points: _Points) -> Floats:
        """The logarithm of each point's size, by ratio."""
        sizes: Floats = np.log(points.workers * (1 + self._RATIOS[:, None] * points.batch))
        return sizes

    @staticmethod
    def _doublings(points: _Points) -> Floats:
        doublings: Floats = np.log2(np.array([points.workers, points.batch, points.threads]))
        return doublings


def _capacity(at: Floats, points: _Points) -> Floats:
    """The logarithm of the model's rate, but for a constant."""
    each, parallel, idle, at_once = math.exp(at[0]), _share(at[1]), _share(at[3]), math.exp(at[4])
    computing = (1 - idle) * (1 - parallel + parallel / points.threads_at_work)
    whole = computing + idle
    # Threads that wait for each other spin; a single one does not.
    spin = points.has_threads * math.exp(at[2])
    wanted = points.workers * points.threads * computing / whole
    crowd = np.maximum(wanted / points.cores, 1.0) ** (1 + spin)
    queue = np.maximum(points.workers * idle / whole / at_once, 1.0)
    logs: Floats = np.log(points.workers * points.batch / (1 + each * points.batch))
    logs -= np.log(computing * crowd + idle * queue)
    return logs


def _kernel(at: Floats, apart: Floats) -> Floats:
    """Matérn 5/2 with a length for each dimension."""
    closeness = np.exp(-2 * at[len(_PRIORS) :])
    # As np.tensordot does, without what it spends on small arrays.
    r = np.sqrt(5 * (closeness @ apart.reshape(len(apart), -1)).reshape(apart.shape[1:]))
    kernel: Floats = math.exp(2 * at[_PROCESS]) * (1 + r + r * r / 3) * np.exp(-r)
    return kernel


def _share(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def _density(z: Floats) -> Floats:
    density: Floats = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return density


def _below(z: Floats) -> Floats:
    below: Floats = scipy.special.ndtr(z)
    return below


def _inverse(factor: Floats) -> Floats:
    """Of a matrix, by its Cholesky factor."""
    lower, _ = scipy.linalg.lapack.dpotri(factor, lower=1)
    inverse: Floats = np.tril(lower) + np.tril(lower, -1).T
    return inverse
