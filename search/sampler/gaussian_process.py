"""Gaussian process regression on log rates, averaged over its parameters. Pure.

Every function works on several parameter vectors at once. The parameters are sampled from their
posterior by Metropolis with two kinds of steps: random walks of a few parameters, and differences
of other walkers (differential evolution), which follow the posterior's shape.

Sources: Rasmussen & Williams, Gaussian Processes for Machine Learning, chapters 2.7, 5.4.2;
ter Braak, A Markov Chain Monte Carlo version of the genetic algorithm Differential Evolution, 2006.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from search.sampler.features import Features, Floats, squared_distances

#: Standard deviation of the prior of the constant: log rates span some orders of magnitude.
OFFSET_SD = 4.0
#: Prior of the log of the noise of a measured rate.
NOISE_PRIOR = (math.log(0.06), 0.4)
#: Covariances that cannot be factorized get this share of their diagonal added, step by step.
_JITTERS = (0.0, 1e-9, 1e-6, 1e-3)
#: A diagonal that keeps a matrix positive definite with any right-hand side.
_LARGE = 1e12
#: Steps of the random walk, in deviations of the prior, and how many parameters each moves.
_WALK_SIZES, _MOVED_PARAMETERS = (0.1, 0.3, 0.7), 3
_EVOLUTION_SHARE = 0.5
#: Draws of the prior to start from, and by how much their log posterior is flattened.
_PRIOR_DRAWS, _FLATTENING = 400, 3.0

#: Returns the mean function at parameter vectors, shape (vectors, points).
MeanFunction = Callable[[Floats, Features], Floats]


@dataclass(frozen=True)
class Prior:
    """Normal prior of the parameters: those of the mean function, signal, noise, length scales."""

    mean: Floats
    sd: Floats

    @classmethod
    def of(
        cls,
        mean_function: tuple[tuple[float, float], ...],
        signal: tuple[float, float],
        lengths: list[tuple[float, float]],
    ) -> Prior:
        """Return the prior; every pair is a mean and a standard deviation."""
        pairs = np.array([*mean_function, signal, NOISE_PRIOR, *lengths])
        return cls(pairs[:, 0], pairs[:, 1])

    def draw(self, random: np.random.Generator, count: int) -> Floats:
        """Return parameter vectors to start from; most of them are near the mean."""
        return self.mean + 0.7 * self.sd * random.normal(size=(count, len(self.mean)))


@dataclass(frozen=True)
class Data:
    """Log rates at points.

    Attributes:
        extra_variance: variance of each rate in addition to the noise.
        auxiliary: log rates of the workers alone, which constrain the mean function only: their
            residuals are independent. They are given with their function.
    """

    features: Features
    log_rates: Floats
    extra_variance: Floats
    auxiliary: Auxiliary | None = None


@dataclass(frozen=True)
class Auxiliary:
    """Observations of another function of the same parameters and the same constant.

    Attributes:
        function: returns its values at parameter vectors, shape (vectors, observations).
        values: observed.
        sd: standard deviation of an observation, in addition to the noise.
    """

    function: Callable[[Floats], Floats]
    values: Floats
    sd: float


@dataclass(frozen=True)
class Fit:
    """The process at parameter vectors; the first axis of every array is the vector's.

    Attributes:
        log_posterior: of the parameters, up to a constant; −∞ if it cannot be computed.
        inverse: of the covariance with noise.
        weights: inverse × residuals.
        ones: inverse × 1.
        offset, offset_variance: posterior of the constant.
        residuals: log rates − mean function − offset.
        fitted: posterior mean at the fitted points.
    """

    log_posterior: Floats
    inverse: Floats
    weights: Floats
    ones: Floats
    offset: Floats
    offset_variance: Floats
    residuals: Floats
    fitted: Floats

    def log_predictive(self) -> Floats:
        """Return the log density of each rate given the others, shape (vectors, points)."""
        errors, sds = self.left_out()
        density: Floats = -0.5 * ((errors / sds) ** 2 + math.log(2 * math.pi)) - np.log(sds)
        return density

    def left_out(self) -> tuple[Floats, Floats]:
        """Return each log rate − its prediction by the others, and the prediction's deviation.

        Shapes (vectors, points). Leave-one-out cross-validation in closed form, with the constant
        integrated out.
        """
        precision = OFFSET_SD**-2 + self.ones.sum(axis=1)
        inverse = self.inverse - (
            self.ones[:, :, None] * self.ones[:, None, :] / precision[:, None, None]
        )
        diagonal = np.maximum(np.diagonal(inverse, axis1=1, axis2=2), 1e-12)
        raw = self.residuals + self.offset[:, None]
        return np.einsum("kij,kj->ki", inverse, raw) / diagonal, 1 / np.sqrt(diagonal)


class GaussianProcess:
    """A Gaussian process (Matérn 5/2 kernel, one length scale per feature) with a mean function."""

    def __init__(self, prior: Prior, mean_function: MeanFunction, data: Data):
        self.prior, self._mean, self._data = prior, mean_function, data
        self._signal = len(prior.mean) - len(data.features.unit) - 2
        self._squared = squared_distances(data.features.unit, data.features.unit)

    def start(self, random: np.random.Generator, count: int) -> Floats:
        """Return parameter vectors to start from: draws of the prior, weighted by the posterior."""
        draws = self.prior.draw(random, _PRIOR_DRAWS)
        logs = self._log_posterior(draws)
        # Gumbel's trick draws without replacement, here from a flattened posterior.
        keys = logs / _FLATTENING + random.gumbel(size=len(logs))
        return draws[np.argsort(-np.where(np.isfinite(keys), keys, -np.inf))[:count]]

    def sample(self, random: np.random.Generator, walkers: Floats, steps: int) -> Floats:
        """Return the walkers, shape (walkers, parameters), after some steps."""
        walkers = walkers.copy()
        half = len(walkers) // 2
        log_posterior = self._log_posterior(walkers)
        for _ in range(steps):
            for moved, donors in (
                (slice(0, half), walkers[half:]),
                (slice(half, None), walkers[:half]),
            ):
                current = walkers[moved]
                proposal = self._propose(random, current, donors)
                proposed = self._log_posterior(proposal)
                uniform = np.log(random.random(len(current)) + 1e-300)
                is_accepted = uniform < proposed - log_posterior[moved]
                walkers[moved] = np.where(is_accepted[:, None], proposal, current)
                log_posterior[moved] = np.where(is_accepted, proposed, log_posterior[moved])
        return walkers

    def _propose(self, random: np.random.Generator, current: Floats, donors: Floats) -> Floats:
        count, size = current.shape
        if random.random() < _EVOLUTION_SHARE:
            first = random.integers(len(donors), size=count)
            second = (first + random.integers(1, len(donors), size=count)) % len(donors)
            scale = 1.0 if random.random() < 0.1 else 2.38 / math.sqrt(2 * size)
            jitter = 0.02 * self.prior.sd * random.normal(size=current.shape)
            difference: Floats = scale * (donors[first] - donors[second]) + jitter
            return current + difference
        is_moved = random.random(current.shape) < _MOVED_PARAMETERS / size
        walk = random.choice(_WALK_SIZES) * self.prior.sd * random.normal(size=current.shape)
        moved: Floats = current + walk * is_moved
        return moved

    def _log_posterior(self, parameters: Floats) -> Floats:
        return self.fit(parameters, only_posterior=True).log_posterior

    def fit(self, parameters: Floats, only_posterior: bool = False) -> Fit:
        """Return the process at parameter vectors, shape (vectors, parameters)."""
        # Extreme proposals overflow; their posterior is then not finite, and they are rejected.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return self._fit(parameters, only_posterior)

    def _fit(self, parameters: Floats, only_posterior: bool) -> Fit:
        data, signal = self._data, self._signal
        noise = np.exp(2 * parameters[:, signal + 1])[:, None]
        kernel = self._kernel(parameters, self._squared)
        count = len(data.log_rates)
        residuals = data.log_rates - self._mean(parameters, data.features)
        covariance = kernel.copy()
        covariance[:, np.arange(count), np.arange(count)] += noise + data.extra_variance
        factor, half = _factorize(
            covariance, np.stack([residuals, np.ones_like(residuals)], axis=1)
        )
        diagonal = np.diagonal(factor, axis1=1, axis2=2)
        log_determinant = 2 * np.log(diagonal).sum(axis=1)
        ones_ones = (half[:, 1] ** 2).sum(axis=1) + OFFSET_SD**-2
        ones_residuals = (half[:, 0] * half[:, 1]).sum(axis=1)
        square = (half[:, 0] ** 2).sum(axis=1)
        if (auxiliary := data.auxiliary) is not None:
            variance = noise[:, 0] + auxiliary.sd**2
            others = auxiliary.values - auxiliary.function(parameters)
            ones_ones += len(auxiliary.values) / variance
            ones_residuals += others.sum(axis=1) / variance
            square += (others**2).sum(axis=1) / variance
            log_determinant += len(auxiliary.values) * np.log(variance)
        offset = ones_residuals / ones_ones
        z = (parameters - self.prior.mean) / self.prior.sd
        log_posterior = -0.5 * (
            square
            - offset * ones_residuals
            + log_determinant
            + np.log(ones_ones)
            + (z**2).sum(axis=1)
        )
        log_posterior = np.where(np.isfinite(log_posterior), log_posterior, -np.inf)
        empty = np.empty(0)
        if only_posterior:
            return Fit(log_posterior, empty, empty, empty, offset, empty, empty, empty)
        inverse_factor = np.linalg.inv(factor)
        inverse = inverse_factor.transpose(0, 2, 1) @ inverse_factor
        centred = residuals - offset[:, None]
        weights = np.einsum("kij,kj->ki", inverse, centred)
        fitted = data.log_rates - centred + np.einsum("kij,kj->ki", kernel, weights)
        return Fit(
            log_posterior,
            inverse,
            weights,
            inverse.sum(axis=2),
            offset,
            1 / ones_ones,
            centred,
            fitted,
        )

    def predict(
        self, parameters: Floats, fit: Fit, features: Features, vectors: slice = slice(None)
    ) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the log rate, shape (vectors, points).

        Args:
            vectors: those of the parameter vectors to use.
        """
        parameters = parameters[vectors]
        cross = self._kernel(parameters, squared_distances(features.unit, self._data.features.unit))
        mean = fit.offset[vectors, None] + self._mean(parameters, features)
        mean = mean + (cross @ fit.weights[vectors, :, None])[:, :, 0]
        reduction = ((cross @ fit.inverse[vectors]) * cross).sum(axis=2)
        lever = 1 - (cross @ fit.ones[vectors, :, None])[:, :, 0]
        variance = np.exp(2 * parameters[:, self._signal, None]) - reduction
        variance = variance + lever**2 * fit.offset_variance[vectors, None]
        return mean, np.sqrt(np.maximum(variance, 1e-10))

    def noise_sd(self, parameters: Floats) -> Floats:
        """Return the standard deviation of a measurement at parameter vectors, by vector."""
        sd: Floats = np.exp(parameters[:, self._signal + 1])
        return sd

    def draw(
        self,
        random: np.random.Generator,
        parameters: Floats,
        fit: Fit,
        features: Features,
        draws: int,
    ) -> Floats:
        """Return joint draws of the log rates at points, shape (vectors, draws, points)."""
        cross = self._kernel(parameters, squared_distances(features.unit, self._data.features.unit))
        own = self._kernel(parameters, squared_distances(features.unit, features.unit))
        mean, _ = self.predict(parameters, fit, features)
        lever = 1 - (cross @ fit.ones[:, :, None])[:, :, 0]
        covariance = own - cross @ fit.inverse @ cross.transpose(0, 2, 1)
        covariance += lever[:, :, None] * lever[:, None, :] * fit.offset_variance[:, None, None]
        count = covariance.shape[1]
        covariance[:, np.arange(count), np.arange(count)] += 1e-6
        normal = random.normal(size=(len(parameters), draws, count))
        return mean[:, None, :] + normal @ _cholesky(covariance).transpose(0, 2, 1)

    def _kernel(self, parameters: Floats, squared: Floats) -> Floats:
        lengths = parameters[:, self._signal + 2 :]
        weighted = np.exp(-2 * lengths) @ squared.reshape(len(squared), -1)
        r = np.sqrt(5 * weighted)
        kernel = np.exp(2 * parameters[:, self._signal, None] - r) * (1 + r + r * r / 3)
        shaped: Floats = kernel.reshape(len(parameters), *squared.shape[1:])
        return shaped


def _factorize(covariance: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Return lower Cholesky factors, and their inverse × each right-hand side.

    Both come from one factorization of the matrices with the right-hand sides as further rows.

    Args:
        right: shape (matrices, right-hand sides, rows of a matrix).
    """
    count, sides = covariance.shape[1], right.shape[1]
    whole = np.zeros((len(covariance), count + sides, count + sides))
    whole[:, :count, :count] = covariance
    whole[:, count:, :count] = right
    whole[:, range(count, count + sides), range(count, count + sides)] = _LARGE
    factor = _cholesky(whole)
    return factor[:, :count, :count], factor[:, count:, :count]


def _cholesky(covariance: Floats) -> Floats:
    """Return lower Cholesky factors; NaN for a matrix that has none even with jitter."""
    try:
        return np.asarray(np.linalg.cholesky(covariance), float)
    except np.linalg.LinAlgError:
        return np.array([_cholesky_of_one(matrix) for matrix in covariance])


def _cholesky_of_one(matrix: Floats) -> Floats:
    scale = float(np.median(np.diagonal(matrix)))
    for jitter in _JITTERS:
        try:
            jittered = matrix + jitter * scale * np.eye(len(matrix))
            return np.asarray(np.linalg.cholesky(jittered), float)
        except np.linalg.LinAlgError:
            continue
    return np.full_like(matrix, np.nan)
