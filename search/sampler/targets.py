"""Predict what a run optimizes instead of the rate, and the probability that its limits hold. Pure.

Each figure (1 ÷ p99 or 1 ÷ memory, latency ÷ its limit, memory) has a Gaussian process of its
logarithm. The probability of the needed rate is that of the surrogate of rates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.special

from search.sampler.features import Features, Floats
from search.sampler.gaussian_process import Data, GaussianProcess, Prior
from search.sampler.mixture import mixture_quantiles
from search.sampler.observations import Observation, Point
from search.sampler.surrogate import Surrogate
from search.spec.space import Space
from search.trial.objective import Objective

#: Priors of the log of the signal's standard deviation and of the length scales.
_SIGNAL, _LENGTH = (math.log(0.8), 0.4), (math.log(0.8), 0.8)
#: Walkers, and their steps.
_WALKERS, _STEPS = 12, 120
#: Standard deviation of log p99 of a short window, and of the log of a peak of the memory.
_LATENCY_SD, _MEMORY_SD = 0.12, 0.02
#: Minimum number of trials for a prediction.
_MIN_TRIALS = 2
#: An improvement by less than this share is not worth another trial.
WORTHWHILE = {"rate": 0.03, "latency": 0.1, "footprint": 0.03}


class LogProcess:
    """A Gaussian process of the logarithm of a positive figure.

    Args:
        points: measured; at least one.
        values: of the figure, positive.
        sd: standard deviation of a measurement's logarithm.
    """

    def __init__(
        self,
        space: Space,
        points: Sequence[Point],
        values: Sequence[float],
        sd: float,
        random: np.random.Generator,
    ):
        self._space, self._random, self._sd = space, random, sd
        features = Features(space, points)
        variance = np.full(len(values), sd**2)
        prior = Prior.of((), _SIGNAL, [_LENGTH] * len(features.names))
        self._process = GaussianProcess(
            prior,
            lambda parameters, f: np.zeros((len(parameters), f.unit.shape[1])),
            Data(features, np.log(values), variance),
        )
        start = self._process.start(random, _WALKERS)
        self._samples = self._process.sample(random, start, _STEPS)
        self._fit = self._process.fit(self._samples)

    def predict(self, points: Sequence[Point]) -> tuple[Floats, Floats]:
        """Return means and standard deviations of the logarithm, shape (samples, points)."""
        return self._process.predict(self._samples, self._fit, Features(self._space, points))

    def draw(self, points: Sequence[Point], draws: int) -> Floats:
        """Return joint draws of the logarithm, shape (samples × draws, points)."""
        features = Features(self._space, points)
        drawn = self._process.draw(self._random, self._samples, self._fit, features, draws)
        return drawn.reshape(-1, len(points))

    def quantiles(self, points: Sequence[Point], probabilities: Sequence[float]) -> Floats:
        """Return quantiles of one more measurement, shape (probabilities, points)."""
        means, sds = self.predict(points)
        noise = self._process.noise_sd(self._samples)[:, None]
        sds = np.sqrt(sds**2 + noise**2 + self._sd**2)
        shares = np.full(len(means), 1 / len(means))
        return np.asarray(np.exp(mixture_quantiles(means, sds, shares, probabilities)), float)

    def left_out_levels(self) -> Floats:
        """Return for each measured value the probability, by the others, of a lower one."""
        errors, sds = self._fit.left_out()
        levels: Floats = scipy.special.ndtr(errors / sds).mean(axis=0)
        return levels

    def probability_below(self, points: Sequence[Point], limit: float) -> Floats:
        """Return the probability that the figure is at most `limit` at each point."""
        means, sds = self.predict(points)
        probability: Floats = scipy.special.ndtr((math.log(limit) - means) / sds).mean(axis=0)
        return probability


class Targets:
    """The objective's figures and limits, fitted to observations.

    Attributes:
        has_met: whether a configuration of this run met the limits.
    """

    def __init__(
        self,
        space: Space,
        observations: Sequence[Observation],
        objective: Objective,
        rates: Surrogate,
        random: np.random.Generator,
    ):
        self._space, self._objective, self._rates = space, objective, rates
        self._random = random
        self._own = [o for o in observations if o.is_own]
        self._met = [o for o in self._own if o.served and o.is_met]
        self.has_met = bool(self._met)
        self._score: LogProcess | None = None
        self._latency: LogProcess | None = None
        self._memory: LogProcess | None = None
        if not objective.maximizes_rate:
            sd = _LATENCY_SD if objective.kind == "latency" else _MEMORY_SD
            self._score = self._process([o.score for o in self._own], sd)
        if objective.required_rps is not None and objective.limits_latency:
            self._latency = self._process([o.latency_share for o in self._own], _LATENCY_SD)
        if objective.memory_mb is not None:
            self._memory = self._process([o.telemetry.memory_mb for o in self._own], _MEMORY_SD)

    def _process(self, values: Sequence[float | None], sd: float) -> LogProcess | None:
        known = [(o.point, v) for o, v in zip(self._own, values, strict=True) if v]
        if len(known) < _MIN_TRIALS:
            return None
        points, figures = zip(*known, strict=True)
        return LogProcess(self._space, points, figures, sd, self._random)

    def probability(self, points: Sequence[Point]) -> Floats:
        """Return the probability that each point meets the limits."""
        probability = np.ones(len(points))
        objective = self._objective
        if objective.workers is not None:
            workers = [self._space.workers(self._space.config(point)) for point in points]
            probability *= np.array(workers) <= objective.workers
        if objective.required_rps is not None:
            predicted = self._rates.predict(points)
            above = scipy.special.ndtr(
                (predicted.means - math.log(objective.required_rps)) / predicted.sds
            )
            probability *= predicted.weights @ above.mean(axis=1)
        if self._latency is not None:
            probability *= self._latency.probability_below(points, 1.0)
        if self._memory is not None and objective.memory_mb is not None:
            probability *= self._memory.probability_below(points, objective.memory_mb)
        return probability

    def expected_improvement(self, points: Sequence[Point], thin: int) -> Floats:
        """Return the expected improvement over the best point that met the limits.

        1 everywhere if there is none, or if too little is known: any point that meets them counts.
        """
        if not self.has_met:
            return np.ones(len(points))
        if self._objective.maximizes_rate:
            return np.nan_to_num(self._rates.predict(points, thin).expected_improvement())
        if self._score is None:
            return np.ones(len(points))
        means, sds = self._score.predict(points)
        best = self._score.predict([o.point for o in self._met])[0].max(axis=1)
        gain = means - best[:, None]
        z = gain / sds
        density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        expected: Floats = (sds * density + gain * scipy.special.ndtr(z)).mean(axis=0)
        return expected

    def drawn_gains(self, points: Sequence[Point], draws: int) -> tuple[Floats, Floats]:
        """Return joint draws of log score ÷ that of the best, and the weight of each draw."""
        met = [o.point for o in self._met]
        if self._score is None:
            incumbent = met[int(np.argmax(self._rates.predict(met).mean))]
            drawn, weights = self._rates.draw([incumbent, *points], draws)
        else:
            incumbent = met[int(np.argmax(self._score.predict(met)[0].mean(axis=0)))]
            drawn = self._score.draw([incumbent, *points], draws)
            weights = np.full(len(drawn), 1 / len(drawn))
        return drawn[:, 1:] - drawn[:, :1], weights

    def order(self) -> list[Observation]:
        """Return the observations that serve, best first; those that meet the limits first."""

        def rank(o: Observation) -> tuple[bool, float]:
            return o.is_met, o.rate_rps if self._objective.maximizes_rate else o.score or 0.0

        return sorted((o for o in self._own if o.served), key=rank, reverse=True)

    def posterior_scores(self, points: Sequence[Point]) -> Floats:
        """Return the posterior mean of the score at each point, without its unit."""
        if self._score is None:
            return np.exp(self._rates.predict(points).mean)
        scores: Floats = np.exp(self._score.predict(points)[0].mean(axis=0))
        return scores
