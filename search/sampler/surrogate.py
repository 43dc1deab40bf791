"""Predict the rate of any configuration from the trials so far. Pure.

Two models of log rates are averaged: a Gaussian process around the formula of `capacity`, and one
without a formula. The weight of each is its share of the evidence, the density of each rate given
the others, kept within bounds, because neither model holds on every server.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.special

from search.sampler.capacity import PRIORS, Load, log_rate, log_worker_rate
from search.sampler.features import Features, Floats
from search.sampler.gaussian_process import Auxiliary, Data, Fit, GaussianProcess, Prior
from search.sampler.mixture import mixture_quantiles
from search.sampler.observations import Observation, Point
from search.spec.space import Space
from serving.metrics import HandlerTime

#: Bounds of the weight of a model.
WEIGHT_BOUNDS = (0.2, 0.8)
#: Walkers of each model, and their steps: at first, and after each further trial.
_WALKERS, _FIRST_STEPS, _NEXT_STEPS = 16, 200, 20
#: Maximum number of trials to fit: the cost grows with its cube.
_MAX_FITTED = 56
#: Settings that the formula depends on: what it leaves varies slowly with them.
MODELLED_SETTINGS = ("workers", "batch_size", "mkl_threads")
#: Priors of the log of standard deviations and length scales, with and without the formula.
_FORMULA_SIGNAL, _FREE_SIGNAL = (math.log(0.12), 0.8), (math.log(0.8), 0.4)
_MODELLED_LENGTH, _OTHER_LENGTH = (math.log(0.7), 0.7), (math.log(1.5), 1.0)
_FREE_LENGTHS = {"workers": (math.log(0.7), 0.6), "batch_size": (math.log(0.7), 0.6)}
_FREE_LENGTH = (math.log(1.0), 1.0)
#: Standard deviation of a handler time around the formula, and the maximum number of them.
_HANDLER_SD, _MAX_HANDLER_TIMES = 0.06, 64
#: Maximum number of servers that handler times describe in the model without the formula.
_MAX_PARTIAL = 12


@dataclass(frozen=True)
class Prediction:
    """Distribution of the log rate at points: an equal mixture for each model.

    Attributes:
        means, sds: of each model's parameter samples, shape (models, samples, points).
        best: of each sample, the highest mean at a measured point, shape (models, samples).
        weights: of the models; they sum up to 1.
    """

    means: Floats
    sds: Floats
    best: Floats
    weights: Floats

    def with_weights(self, weights: Floats) -> Prediction:
        """Return the prediction with other weights of the models."""
        return replace(self, weights=weights)

    @property
    def mean(self) -> Floats:
        """The mean of the log rate at each point."""
        mean: Floats = self.weights @ self.means.mean(axis=1)
        return mean

    def expected_improvement(self) -> Floats:
        """Return the expected improvement of the log rate at each point."""
        gain = self.means - self.best[:, :, None]
        z = gain / self.sds
        density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        improvement = self.sds * density + gain * scipy.special.ndtr(z)
        expected: Floats = self.weights @ improvement.mean(axis=1)
        return expected

    def quantiles(self, probabilities: Sequence[float]) -> Floats:
        """Return quantiles of the log rate, shape (probabilities, points)."""
        samples = self.means.shape[1]
        share = np.repeat(self.weights / samples, samples)
        means = self.means.reshape(-1, self.means.shape[2])
        sds = self.sds.reshape(means.shape)
        return mixture_quantiles(means, sds, share, probabilities)


@dataclass
class Walkers:
    """Parameter samples of both models, kept from one trial to the next."""

    of_model: dict[int, Floats] = field(default_factory=dict)


class Surrogate:
    """The two models, fitted to observations of which at least one has a rate.

    Args:
        space: its dimensions must be those of the observations.
        walkers: from earlier observations of the same study; updated.

    Attributes:
        evidence: share of each model in the evidence. Predictions that are shown use it.
        weights: the same within `WEIGHT_BOUNDS`. The search uses them, so that it tries what either
            model expects.
    """

    def __init__(
        self,
        space: Space,
        observations: Sequence[Observation],
        random: np.random.Generator,
        walkers: Walkers | None = None,
    ):
        self._space, self._random = space, random
        walkers = Walkers() if walkers is None else walkers
        fitted = _select(observations)
        features = Features(space, [o.point for o in fitted])
        names = features.names
        log_rates = np.log([o.rate_rps for o in fitted])
        extra = np.array([o.extra_sd**2 for o in fitted])
        formula = GaussianProcess(
            Prior.of(
                PRIORS,
                _FORMULA_SIGNAL,
                [_MODELLED_LENGTH if n in MODELLED_SETTINGS else _OTHER_LENGTH for n in names],
            ),
            lambda parameters, points: log_rate(parameters, Load.of(points)),
            Data(features, log_rates, extra, _handler_data(space, fitted)),
        )
        partial = _partial_servers(space, fitted)
        free = GaussianProcess(
            Prior.of((), _FREE_SIGNAL, [_FREE_LENGTHS.get(n, _FREE_LENGTH) for n in names]),
            lambda parameters, points: np.zeros((len(parameters), points.unit.shape[1])),
            Data(
                Features(space, [o.point for o in (*fitted, *partial)]),
                np.log([o.rate_rps for o in (*fitted, *partial)]),
                np.array([o.extra_sd**2 for o in (*fitted, *partial)]),
            ),
        )
        self._measured = len(fitted)
        self._is_own = np.array([o.is_own and o.is_met for o in fitted])
        self._models = (formula, free)
        self._samples: list[Floats] = []
        self._fits: list[Fit] = []
        for number, model in enumerate(self._models):
            start = walkers.of_model.get(number)
            steps = _FIRST_STEPS if start is None else _NEXT_STEPS
            if start is None:
                start = model.start(random, _WALKERS)
            samples = model.sample(random, start, steps)
            walkers.of_model[number] = samples
            self._samples.append(samples)
            self._fits.append(model.fit(samples))
        share = self._formula_share()
        bounded = float(np.clip(share, *WEIGHT_BOUNDS))
        self.evidence = np.array([share, 1 - share])
        self.weights = np.array([bounded, 1 - bounded])

    def _formula_share(self) -> float:
        logs = []
        for fit in self._fits:
            density = fit.log_predictive()[:, : self._measured]
            logs.append(scipy.special.logsumexp(density, axis=0, b=1 / len(density)).sum())
        difference = float(logs[0] - logs[1])
        return float(scipy.special.expit(difference)) if math.isfinite(difference) else 0.5

    def predict(self, points: Sequence[Point], thin: int = 1) -> Prediction:
        """Return the distribution of the log rate at points.

        Args:
            thin: use every n-th parameter sample only.
        """
        features = Features(self._space, points)
        means, sds, best = [], [], []
        for model, samples, fit in zip(self._models, self._samples, self._fits, strict=True):
            mean, sd = model.predict(samples, fit, features, slice(None, None, thin))
            means.append(mean)
            sds.append(sd)
            own = fit.fitted[::thin, : self._measured][:, self._is_own]
            best.append(own.max(axis=1, initial=-math.inf))
        return Prediction(np.array(means), np.array(sds), np.array(best), self.weights)

    def draw(self, points: Sequence[Point], draws: int) -> tuple[Floats, Floats]:
        """Return joint draws of the log rates at points, and the weight of each by the evidence.

        Args:
            draws: of each parameter sample.
        """
        features = Features(self._space, points)
        drawn = [
            model.draw(self._random, samples, fit, features, draws).reshape(-1, len(points))
            for model, samples, fit in zip(self._models, self._samples, self._fits, strict=True)
        ]
        weights = np.repeat(self.evidence / len(drawn[0]), len(drawn[0]))
        return np.concatenate(drawn), weights


def _select(observations: Sequence[Observation]) -> list[Observation]:
    """Return those with a rate: all, or the fastest and the newest if there are too many.

    Those of an earlier run are the first to be left out.
    """
    served = [o for o in observations if o.served]
    if len(served) <= _MAX_FITTED:
        return served
    earlier = [o for o in served if not o.is_own]
    served = [o for o in served if o.is_own]
    if len(served) <= _MAX_FITTED:
        return [*served, *earlier[: _MAX_FITTED - len(served)]]
    fastest = sorted(range(len(served)), key=lambda i: -served[i].rate_rps)[: _MAX_FITTED // 2]
    newest = range(len(served) - _MAX_FITTED // 2, len(served))
    return [served[i] for i in sorted({*fastest, *newest})]


def _handler_data(space: Space, observations: Sequence[Observation]) -> Auxiliary | None:
    """Return the measured handler times as rates of the workers alone; None without any."""
    rows: list[tuple[Observation, HandlerTime]] = [
        (o, time) for o in observations for time in o.telemetry.handler_times if time.is_valid
    ][-_MAX_HANDLER_TIMES:]
    if not rows:
        return None
    f = Features(space, [o.point for o, _ in rows])
    times = [time for _, time in rows]
    batch = np.array([time.batch_fill for time in times])
    workers = np.array([time.busy_workers for time in times])
    load = Load(workers, batch, f.threads, f.netty, f.client, f.cores)
    log_rates = np.log([_worker_rps(time) for time in times])
    return Auxiliary(lambda parameters: log_worker_rate(parameters, load), log_rates, _HANDLER_SD)


def _worker_rps(time: HandlerTime) -> float:
    return time.busy_workers * time.batch_fill / time.seconds


def _partial_servers(space: Space, observations: Sequence[Observation]) -> list[Observation]:
    """Return handler times as observations of servers with fewer workers and smaller batches.

    Only rates that the front end is known to reach count. Servers with the same workers, batches
    and threads count once.
    """
    varied = {d.name for d in space.dimensions if not d.choices}
    rates: dict[tuple[int, int, float], list[float]] = {}
    points: dict[tuple[int, int, float], Point] = {}
    if not {"workers", "batch_size"} <= varied:
        return []
    threads = Features(space, [o.point for o in observations]).threads
    for o, thread_count in zip(observations, threads.tolist(), strict=True):
        for time in o.telemetry.handler_times:
            if not time.is_valid or _worker_rps(time) > o.rate_rps:
                continue
            key = round(time.busy_workers), round(time.batch_fill), thread_count
            if key[:2] == (o.point["workers"], o.point["batch_size"]) or 0 in key:
                continue
            rates.setdefault(key, []).append(_worker_rps(time))
            points[key] = {**o.point, "workers": key[0], "batch_size": key[1]}
    newest = list(points)[-_MAX_PARTIAL:]
    return [
        Observation(points[key], float(np.median(rates[key])), extra_sd=_HANDLER_SD)
        for key in newest
    ]
