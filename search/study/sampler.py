"""An Optuna sampler: Gaussian process regression on the residuals of a model of capacity.

The model is a batch pipeline on shared cores. Its rate is workers × batch ÷ (1 + c × batch) ÷ time,
in which the time follows Amdahl's law in the threads, and grows if more threads than cores compute.
The Gaussian process (Matérn 5/2 kernel, one length scale per dimension) models the logarithm of
the rate that is left. The parameters of both are sampled from their posterior by random-walk
Metropolis, and the next point maximizes expected improvement, summed over the samples, ×
the probability of feasibility.

Sources: Rasmussen & Williams, Gaussian Processes for Machine Learning, chapters 2.7 and 5;
Snoek et al., Practical Bayesian Optimization of Machine Learning Algorithms (2012), for the
acquisition function averaged over hyperparameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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

from search.spec.space import Space

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]
Point = Mapping[str, Any]

#: Mean and standard deviation of the normal prior of each parameter.
_PRIORS = (
    (math.log(0.1), 2.0),  # log of a batch's cost per item ÷ its fixed cost
    (1.0, 1.5),  # logit of the share of the work that threads divide (Amdahl)
    (-0.7, 1.0),  # log of the penalty exponent for more threads than cores
    (-2.0, 2.0),  # logit of the share of the work that needs no core
    (math.log(8), 1.5),  # log of the number of batches that share takes at once (an accelerator)
    (math.log(0.25), 0.7),  # log of the Gaussian process's standard deviation
    (math.log(0.06), 0.4),  # log of the standard deviation of the noise
)
_SIGNAL, _NOISE = len(_PRIORS) - 2, len(_PRIORS) - 1
#: Priors of the log of the length scale of a dimension, in units of its range.
_MODELLED_LENGTH, _OTHER_LENGTH = (math.log(0.7), 0.7), (math.log(2.0), 0.7)
#: The settings that the model of capacity depends on.
_MODELLED = ("workers", "batch_size", "mkl_threads")
#: Metropolis: steps of the chain, of which the first half is burn-in, and samples to keep.
_STEPS, _SAMPLES = 120, 4
#: Metropolis: a step in the units of the prior's deviation, and the number of parameters it moves.
_STEP_SIZE, _MOVED_PARAMETERS = 0.5, 3
#: Acquisition: random candidates, then rounds of local search around the best candidates.
_RANDOM_CANDIDATES, _LOCAL_STARTS, _LOCAL_ROUNDS = 300, 3, 3
#: Maximum number of trials to fit: the cost grows with its cube.
_MAX_FITTED = 64


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return the space's dimensions as Optuna's distributions."""
    return {
        d.name: CategoricalDistribution(d.choices)
        if d.choices
        else IntDistribution(d.low, d.high, log=d.log)
        for d in space.dimensions
    }


class CapacitySampler(BaseSampler):
    """Optuna's interface to the model.

    Args:
        space: the search space.
        seed: of all random draws.
    """

    def __init__(self, space: Space, seed: int):
        self._space, self._random = space, np.random.default_rng(seed)
        self._distributions = distributions(space)
        self._independent = RandomSampler(seed=seed)
        self._chain_state: Floats | None = None

    def infer_relative_search_space(
        self, study: OptunaStudy, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the whole space; empty if the trial's point is fixed."""
        return {} if "fixed_params" in trial.system_attrs else self._distributions

    def sample_relative(
        self, study: OptunaStudy, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the next point."""
        if not search_space:
            return {}
        states = (OptunaTrialState.COMPLETE, OptunaTrialState.RUNNING)
        trials = [
            t
            for t in study.get_trials(deepcopy=False, states=states)
            if t.params.keys() == search_space.keys()
        ]
        complete = [t for t in trials if t.state is OptunaTrialState.COMPLETE]
        return self.propose(
            points=[t.params for t in complete],
            rates=[t.value or 0.0 for t in complete],
            violated=[any(value > 0 for value in t.constraints.values()) for t in complete],
            too_large=[bool(t.user_attrs.get("too_large", False)) for t in complete],
            running=[t.params for t in trials if t.state is OptunaTrialState.RUNNING],
        )

    def sample_independent(
        self,
        study: OptunaStudy,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return a random value for a setting that a fixed point lacks."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def propose(
        self,
        points: Sequence[Point],
        rates: Sequence[float],
        violated: Sequence[bool] = (),
        too_large: Sequence[bool] = (),
        running: Sequence[Point] = (),
    ) -> dict[str, Any]:
        """Return the point to try next; a random one before the first success.

        Args:
            rates: of the points, requests/s; 0 for a failure.
            violated: whether a point violated a constraint, and may have failed because of it.
            too_large: whether a point failed for lack of memory.
            running: points in progress; they count with the median rate.
        """
        if running and any(rates):
            no = [False] * len(running)
            points = [*points, *running]
            rates = [*rates, *[median(rate for rate in rates if rate > 0)] * len(running)]
            violated = [*violated, *no] if violated else violated
            too_large = [*too_large, *no] if too_large else too_large
        served = [i for i, rate in enumerate(rates) if rate > 0]
        if not served:
            return self._space.draw(self._random, 1)[0]
        best = points[max(served, key=lambda i: rates[i])]
        fitted = _select_for_fit(served, rates)
        process = _GaussianProcess(
            _Features(self._space, [points[i] for i in fitted]),
            np.log([rates[i] for i in fitted]),
        )
        samples, self._chain_state = process.sample_posterior(self._random, self._chain_state)
        no = [False] * len(points)
        feasibility = _Feasibility(
            _Features(self._space, points),
            np.array(rates) > 0,
            np.array(violated or no),
            np.array(too_large or no),
        )

        def acquisition(candidates: list[dict[str, Any]]) -> Floats:
            features = _Features(self._space, candidates)
            improvement = process.expected_improvement(samples, features)
            return improvement * feasibility.probability(features)

        return self._maximize(acquisition, best, points)

    def _maximize(
        self,
        acquisition: Callable[[list[dict[str, Any]]], Floats],
        best: Point,
        tried: Sequence[Point],
    ) -> dict[str, Any]:
        """Return the untried point with the greatest acquisition among random and local ones."""
        space = self._space

        def key(point: Point) -> tuple[Any, ...]:
            return tuple(point[d.name] for d in space.dimensions)

        candidates = space.draw(self._random, _RANDOM_CANDIDATES)
        # Also vary only the modelled settings of the best point, all of them together.
        modelled = [{n: v for n, v in c.items() if n in _MODELLED} for c in candidates]
        candidates += [{**best, **values} for values in modelled]
        candidates += space.neighbours(best)
        tried_keys = {key(point) for point in tried}
        scored: dict[tuple[Any, ...], tuple[float, dict[str, Any]]] = {}
        for _ in range(_LOCAL_ROUNDS):
            fresh = {key(c): c for c in candidates}
            fresh = {k: c for k, c in fresh.items() if k not in tried_keys and k not in scored}
            if not fresh:
                break
            scores = acquisition(list(fresh.values()))
            for (k, c), score in zip(fresh.items(), scores, strict=True):
                scored[k] = float(score), c
            top = sorted(scored.values(), key=lambda entry: -entry[0])[:_LOCAL_STARTS]
            candidates = [near for _, point in top for near in space.neighbours(point)]
        if not scored:
            return space.draw(self._random, 1)[0]
        return max(scored.values(), key=lambda entry: entry[0])[1]


def _select_for_fit(served: list[int], rates: Sequence[float]) -> list[int]:
    """Return the indices to fit: all, or the fastest and the newest if there are too many."""
    if len(served) <= _MAX_FITTED:
        return served
    fastest = sorted(served, key=lambda i: -rates[i])[: _MAX_FITTED // 2]
    return sorted({*fastest, *served[-_MAX_FITTED // 2 :]})


class _Features:
    """Points as arrays.

    Attributes:
        unit: coordinates scaled to [0, 1], on a logarithmic scale if positive, one-hot for other
            choices; shape (features, points).
        names: the dimension of each feature.
        workers, batch, threads: the modelled settings, TorchServe's default if fixed.
        computing_threads: threads, at most one per core.
        has_threads: 1 if there is more than one thread, else 0.
    """

    def __init__(self, space: Space, points: Sequence[Point]):
        defaults = space.defaults
        self.cores = space.cores
        columns: list[Any] = []
        self.names: list[str] = []
        for d in space.dimensions:
            values = [point[d.name] for point in points]
            if d.choices and not all(isinstance(c, int | float) and c > 0 for c in d.choices):
                columns += [np.array([float(v == c) for v in values]) for c in d.choices[1:]]
                self.names += [d.name] * (len(d.choices) - 1)
                continue
            low, high = (min(d.choices), max(d.choices)) if d.choices else (d.low, d.high)
            numbers = np.array(values, float)
            if low > 0:
                columns.append(np.log(numbers / low) / math.log(high / low))
            else:
                columns.append((numbers - low) / (high - low))
            self.names += [d.name] * (len(columns) - len(self.names))
        self.unit = np.array(columns)

        def setting(name: str) -> Floats:
            fixed = getattr(space.common, name, None) or defaults[name]
            return np.array([point.get(name, fixed) for point in points], float)

        self.workers, self.batch = setting("workers"), setting("batch_size")
        self.threads = setting("mkl_threads")
        self.computing_threads = np.minimum(self.threads, self.cores)
        self.has_threads = (self.threads > 1).astype(float)


@dataclass(frozen=True)
class _Fit:
    """The Gaussian process at one parameter vector.

    Attributes:
        log_posterior: of the parameters, up to a constant.
        factor: lower Cholesky factor of the covariance with noise.
        weights: inverse covariance × residuals.
        offset: the constant of the model, estimated by generalized least squares.
        best: the greatest posterior mean at the fitted points.
    """

    log_posterior: float
    factor: Floats
    weights: Floats
    offset: float
    best: float


@dataclass(frozen=True)
class _Sample:
    """A posterior sample: the parameters, their fit, and the inverse of the covariance."""

    parameters: Floats
    fit: _Fit
    inverse: Floats


class _GaussianProcess:
    """A Gaussian process with the model of capacity as its mean function, on log rates."""

    def __init__(self, features: _Features, log_rates: Floats):
        self._features, self._log_rates = features, log_rates
        self._squared = _squared_distances(features.unit, features.unit)
        lengths = [
            _MODELLED_LENGTH if name in _MODELLED else _OTHER_LENGTH for name in features.names
        ]
        self._prior_mean, self._prior_sd = (
            np.array(column) for column in zip(*_PRIORS, *lengths, strict=True)
        )

    def sample_posterior(
        self, random: np.random.Generator, state: Floats | None
    ) -> tuple[list[_Sample], Floats]:
        """Return samples of the parameters by Metropolis, and the chain's last state.

        Args:
            state: where the chain starts; None for the prior's mean.
        """
        parameters = self._prior_mean if state is None else state
        fit = self._fit(parameters)
        samples = []
        for step in range(_STEPS):
            normal = random.normal(size=len(parameters))
            is_moved = random.random(len(parameters)) < _MOVED_PARAMETERS / len(parameters)
            proposal = parameters + _STEP_SIZE * self._prior_sd * normal * is_moved
            proposal_fit = self._fit(proposal)
            log_ratio = proposal_fit.log_posterior - fit.log_posterior
            if math.log(random.random() + 1e-300) < log_ratio:
                parameters, fit = proposal, proposal_fit
            if step >= _STEPS // 2 and step % (_STEPS // 2 // _SAMPLES) == 0:
                samples.append(_Sample(parameters, fit, _inverse(fit.factor)))
        return samples, parameters

    def expected_improvement(self, samples: list[_Sample], features: _Features) -> Floats:
        """Return the expected improvement of the log rate at each point, summed over samples."""
        squared = _squared_distances(features.unit, self._features.unit)
        total = np.zeros(features.unit.shape[1])
        for sample in samples:
            parameters, fit = sample.parameters, sample.fit
            cross = _matern(parameters, squared)
            mean = fit.offset + _log_capacity(parameters, features) + cross @ fit.weights
            reduction = ((cross @ sample.inverse) * cross).sum(axis=1)
            variance = math.exp(2 * parameters[_SIGNAL]) - reduction
            sd = np.sqrt(np.maximum(variance, 1e-10))
            z = (mean - fit.best) / sd
            total += sd * (_normal_density(z) + z * _normal_cdf(z))
        return total

    def _fit(self, parameters: Floats) -> _Fit:
        kernel = _matern(parameters, self._squared)
        covariance = kernel.copy()
        covariance.flat[:: len(kernel) + 1] += math.exp(2 * parameters[_NOISE])
        factor, _ = scipy.linalg.lapack.dpotrf(covariance, lower=1)
        capacity = _log_capacity(parameters, self._features)
        residuals = self._log_rates - capacity
        # One solve for the residuals and for the constant 1 of the offset.
        right = np.ones((len(residuals), 2))
        right[:, 0] = residuals
        solved, _ = scipy.linalg.lapack.dpotrs(factor, right, lower=1)
        offset = float(solved[:, 0].sum() / solved[:, 1].sum())
        residuals = residuals - offset
        weights: Floats = solved[:, 0] - offset * solved[:, 1]
        log_determinant = 2 * float(np.log(factor.diagonal()).sum())
        z = (parameters - self._prior_mean) / self._prior_sd
        log_posterior = -0.5 * float(residuals @ weights + log_determinant + float((z**2).sum()))
        best = float((offset + capacity + kernel @ weights).max())
        return _Fit(log_posterior, factor, weights, offset, best)


class _Feasibility:
    """The probability that a point serves at all.

    Two factors:

    - Memory: a point is too large if its size, workers × (1 + ratio × batch), is above a limit
      between the largest point that served and the smallest that was too large. `ratio` is the
      memory of an item ÷ that of a worker; a grid of ratios is averaged, and those that
      contradict the trials have almost no weight.
    - Other failures: a kernel-weighted share of the trials that served, by distance in log₂ of
      workers, batch and threads.

    Args:
        served: whether a point has a rate.
        violated: whether a point violated a constraint.
        too_large: whether a point failed for lack of memory.
    """

    _LENGTH_SCALE = 0.7
    _RATIOS = np.geomspace(1e-3, 10.0, 15)
    _CONTRADICTED_WEIGHT = 1e-3
    #: Distance of the limit's lower bound, in log size, if nothing served.
    _MAX_LOG_GAP = math.log(1000)

    def __init__(
        self, features: _Features, served: Booleans, violated: Booleans, too_large: Booleans
    ):
        others = ~too_large  # A neighbour of a point that is too large may be small enough.
        if not too_large.any():
            too_large = ~served & ~violated  # A failure without a reason may be one of memory.
        self._served = (served & ~violated)[others]
        self._log2_settings = self._log2_of(features)[:, others]
        sizes = self._log_sizes(features)
        self._upper = np.min(sizes, axis=1, where=too_large, initial=math.inf)
        lower = np.max(sizes, axis=1, where=served, initial=-math.inf)
        is_consistent = lower < self._upper
        self._weights = np.where(is_consistent, 1.0, self._CONTRADICTED_WEIGHT)
        self._lower = np.where(
            is_consistent, np.maximum(lower, self._upper - self._MAX_LOG_GAP), -math.inf
        )

    def probability(self, features: _Features) -> Floats:
        squared = _squared_distances(self._log2_of(features), self._log2_settings)
        closeness = np.exp(-squared.sum(axis=0) / (2 * self._LENGTH_SCALE**2))
        serves: Floats = (closeness @ self._served + 0.5) / (closeness.sum(axis=1) + 0.5)
        if math.isinf(self._upper[0]):
            return serves
        upper, lower = self._upper[:, None], self._lower[:, None]
        gap = np.maximum(upper - lower, 1e-9)
        fits = np.clip((upper - self._log_sizes(features)) / gap, 0.0, 1.0)
        probability: Floats = serves * (self._weights @ fits) / self._weights.sum()
        return probability

    def _log_sizes(self, features: _Features) -> Floats:
        """Return the log of each point's size; shape (ratios, points)."""
        sizes: Floats = np.log(features.workers * (1 + self._RATIOS[:, None] * features.batch))
        return sizes

    @staticmethod
    def _log2_of(features: _Features) -> Floats:
        settings: Floats = np.log2(np.array([features.workers, features.batch, features.threads]))
        return settings


def _log_capacity(parameters: Floats, features: _Features) -> Floats:
    """Return the log of the modelled rate at each point, up to a constant."""
    item_cost = math.exp(parameters[0])
    parallel, idle = _logistic(parameters[1]), _logistic(parameters[3])
    streams = math.exp(parameters[4])
    computing = (1 - idle) * (1 - parallel + parallel / features.computing_threads)
    batch_time = computing + idle
    # Threads that wait for each other spin; a single thread does not.
    spin = features.has_threads * math.exp(parameters[2])
    busy_threads = features.workers * features.threads * computing / batch_time
    contention = np.maximum(busy_threads / features.cores, 1.0) ** (1 + spin)
    queueing = np.maximum(features.workers * idle / batch_time / streams, 1.0)
    logs: Floats = np.log(features.workers * features.batch / (1 + item_cost * features.batch))
    logs -= np.log(computing * contention + idle * queueing)
    return logs


def _squared_distances(a: Floats, b: Floats) -> Floats:
    """Return the squared distances by feature; shape (features, points of a, points of b)."""
    distances: Floats = (a[:, :, None] - b[:, None, :]) ** 2
    return distances


def _matern(parameters: Floats, squared: Floats) -> Floats:
    """Return the Matérn 5/2 kernel with a length scale for each feature."""
    precisions = np.exp(-2 * parameters[len(_PRIORS) :])
    # np.tensordot without its overhead on small arrays.
    weighted = (precisions @ squared.reshape(len(squared), -1)).reshape(squared.shape[1:])
    r = np.sqrt(5 * weighted)
    kernel: Floats = math.exp(2 * parameters[_SIGNAL]) * (1 + r + r * r / 3) * np.exp(-r)
    return kernel


def _logistic(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def _normal_density(z: Floats) -> Floats:
    density: Floats = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return density


def _normal_cdf(z: Floats) -> Floats:
    cdf: Floats = scipy.special.ndtr(z)
    return cdf


def _inverse(factor: Floats) -> Floats:
    """Return the inverse of a matrix from its lower Cholesky factor."""
    lower, _ = scipy.linalg.lapack.dpotri(factor, lower=1)
    inverse: Floats = np.tril(lower) + np.tril(lower, -1).T
    return inverse
