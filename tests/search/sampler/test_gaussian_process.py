"""Gaussian process regression with given parameters."""

import numpy as np
import pytest

from search.sampler.features import Features
from search.sampler.gaussian_process import Data, GaussianProcess, Prior, _cholesky
from search.spec.dimension import Dimension
from search.spec.space import Space
from serving.configuration.config import ServerConfig

SPACE = Space((Dimension("batch_size", 1, 64, log=True),), ServerConfig(), 2)


def process(batches: list[int], log_rates: list[float], extra: float = 0.0) -> GaussianProcess:
    features = Features(SPACE, [{"batch_size": b} for b in batches])
    prior = Prior.of((), (0.0, 0.5), [(0.0, 0.5)])
    variance = np.full(len(batches), extra)
    zero = lambda parameters, points: np.zeros((len(parameters), points.unit.shape[1]))  # noqa: E731
    return GaussianProcess(prior, zero, Data(features, np.array(log_rates), variance))


#: Signal 1, noise 1 %, length scale of the whole range.
PARAMETERS = np.log(np.array([[1.0, 0.01, 1.0]]))


def test_process_interpolates_and_is_uncertain_elsewhere() -> None:
    gp = process([1, 8, 64], [1.0, 2.0, 3.0])
    fit = gp.fit(PARAMETERS)
    points = Features(SPACE, [{"batch_size": b} for b in (1, 8, 64, 20)])
    mean, sd = gp.predict(PARAMETERS, fit, points)
    assert mean[0, :3] == pytest.approx([1.0, 2.0, 3.0], abs=0.01)
    assert 2.0 < mean[0, 3] < 3.0 and sd[0, 3] > 3 * sd[0, 0]
    assert fit.fitted[0] == pytest.approx([1.0, 2.0, 3.0], abs=0.01)


def test_process_predicts_each_rate_from_the_others_as_a_refit_does() -> None:
    log_rates = [1.0, 2.2, 1.7, 3.0]
    gp = process([1, 4, 16, 64], log_rates)
    density = gp.fit(PARAMETERS).log_predictive()[0]
    for left_out, batch in enumerate((1, 4, 16, 64)):
        kept = [b for b in (1, 4, 16, 64) if b != batch]
        rest = process(kept, [r for i, r in enumerate(log_rates) if i != left_out])
        points = Features(SPACE, [{"batch_size": batch}])
        mean, sd = rest.predict(PARAMETERS, rest.fit(PARAMETERS), points)
        variance = sd[0, 0] ** 2 + 0.01**2
        error = log_rates[left_out] - mean[0, 0]
        expected = -0.5 * (error**2 / variance + np.log(2 * np.pi * variance))
        assert density[left_out] == pytest.approx(expected, abs=1e-3)


def test_process_samples_parameters_that_explain_noise() -> None:
    random = np.random.default_rng(0)
    batches = [1, 2, 4, 8, 16, 32, 64] * 3
    noisy = process(batches, list(random.normal(0, 0.3, len(batches))))
    exact = process(batches, [float(np.log(b)) for b in batches])
    noise = []
    for gp in (noisy, exact):
        walkers = gp.sample(random, gp.start(random, 16), 60)
        noise.append(float(np.exp(walkers[:, 1]).mean()))
    assert noise[0] > 2 * noise[1]


def test_process_draws_agree_with_its_predictions() -> None:
    gp = process([1, 8, 64], [1.0, 2.0, 3.0])
    fit = gp.fit(PARAMETERS)
    points = Features(SPACE, [{"batch_size": b} for b in (2, 20)])
    drawn = gp.draw(np.random.default_rng(0), PARAMETERS, fit, points, 4000)[0]
    mean, sd = gp.predict(PARAMETERS, fit, points)
    assert drawn.mean(axis=0) == pytest.approx(mean[0], abs=0.05)
    assert drawn.std(axis=0) == pytest.approx(sd[0], rel=0.1)


def test_cholesky_adds_jitter_and_marks_what_has_no_factor() -> None:
    singular, broken = np.ones((2, 2)), np.full((2, 2), np.nan)
    factors = _cholesky(np.array([np.eye(2), singular, broken]))
    assert factors[0] == pytest.approx(np.eye(2))
    assert factors[1] @ factors[1].T == pytest.approx(singular, abs=1e-2)
    assert np.isnan(factors[2]).any()


def test_process_rejects_parameters_that_overflow() -> None:
    gp = process([1, 8], [1.0, 2.0])
    fit = gp.fit(np.array([[800.0, -1.0, 0.0], [0.0, -1.0, -800.0]]), only_posterior=True)
    assert fit.log_posterior[0] == -np.inf
