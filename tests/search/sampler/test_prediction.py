"""Predicted rates of configurations."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.machine import Machine
from benchmarks.prediction import PredictionQuality, prediction_quality
from benchmarks.surfaces import Simulated
from search.sampler.observations import Observation
from search.sampler.prediction import predict_rates
from search.sampler.what_if import predict_configs
from search.spec.dimension import Dimension
from search.spec.space_building import build_space
from search.trial.prediction import PredictedRate
from tests.results import trial_result

#: Machines that follow the formula: bound by cores, by waiting, and by an accelerator.
MACHINES = (
    Machine("cores", 8, 0.05, 0.005, spin=1.0, noise=0.05),
    Machine("waits", 4, 0.05, 0.003, waits=0.7, noise=0.05),
    Machine("accelerator", 8, 0.01, 0.0005, device=0.8, streams=2, noise=0.05),
)


@pytest.fixture(scope="module")
def qualities() -> list[PredictionQuality]:
    surfaces = [Simulated(m, build_space({}, m.cores, sizes_queue=True)) for m in MACHINES]
    return [prediction_quality(surface, 0, starts=3, points=40) for surface in surfaces]


def test_predictions_after_three_starts_are_close(qualities: list[PredictionQuality]) -> None:
    errors = [error for quality in qualities for error in quality.errors]
    assert np.median(errors) <= 0.12


def test_prediction_intervals_contain_the_true_rate(qualities: list[PredictionQuality]) -> None:
    covered = [inside for quality in qualities for inside in quality.covered]
    widths = [width for quality in qualities for width in quality.widths]
    assert np.mean(covered) >= 0.85
    assert np.median(widths) <= 5, "an interval that contains everything is of no use"


def test_prediction_is_not_known_without_a_rate() -> None:
    space = build_space({}, 4)
    point = space.nearest_point()
    (predicted,) = predict_rates(space, [Observation(point, 0.0)], [point])
    assert not predicted.is_known and predicted.median_rps is None


def test_prediction_is_the_same_for_the_same_trials() -> None:
    space = build_space({}, 4)
    points = space.draw(np.random.default_rng(0), 4)
    observations = [Observation(point, 10.0 + n) for n, point in enumerate(points)]
    assert predict_rates(space, observations, points) == predict_rates(space, observations, points)


def test_prediction_of_a_measured_point_is_near_its_rate() -> None:
    space = build_space({}, 4)
    points = space.draw(np.random.default_rng(1), 8)
    observations = [Observation(p, 5.0 * p["batch_size"] ** 0.5) for p in points]
    for observation, predicted in zip(
        observations, predict_rates(space, observations, points), strict=True
    ):
        assert predicted.low_rps is not None and predicted.high_rps is not None
        assert 0.8 * predicted.low_rps <= observation.rate_rps <= 1.25 * predicted.high_rps
        assert predicted.serves is not None and predicted.serves > 0.5


def test_predict_configs_knows_nothing_outside_of_the_widest_ranges() -> None:
    space = build_space({"workers": Dimension("", 2, 4)}, 4, sizes_queue=True)
    inside = space.config({**space.nearest_point(), "workers": 3, "batch_size": 8})
    results = [
        trial_result(
            n, 100.0 + n, space.config({**space.nearest_point(), "workers": 2, "batch_size": 2**n})
        )
        for n in range(4)
    ]
    widest = next(d.widen_to for d in space.dimensions if d.name == "batch_size")
    assert widest is not None
    wider = replace(inside, batch_size=widest)
    outside = [
        replace(inside, workers=1),
        replace(inside, workers=5),
        replace(inside, batch_size=2 * widest),
        replace(inside, netty_threads=10**5),
    ]
    known, at_edge, *unknown = predict_configs(space, results, [inside, wider, *outside])
    assert known.median_rps and at_edge.median_rps
    assert unknown == [PredictedRate()] * 4
