"""The proposals of the sampler on simulated servers."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from search.sampler.feasibility import Feasibility
from search.sampler.features import Floats
from search.sampler.observations import Observation
from search.sampler.sampler import CapacitySampler
from search.sampler.surrogate import Prediction
from search.sampler.targets import Targets
from search.spec.dimension import Dimension
from search.spec.space import Space
from search.spec.space_building import build_space
from serving.configuration.config import ServerConfig

SPACE = build_space({}, 4)
Point = Mapping[str, Any]
RateOf = Callable[[Point], float]


def search(space: Space, rate_of: RateOf, trials: int, seed: int = 0) -> list[Point]:
    """Return the recommended starting points, then the sampler's proposals."""
    sampler = CapacitySampler(space, seed)
    points: list[Point] = list(space.recommended_points())
    while len(points) < trials:
        points.append(sampler.propose(points, [rate_of(point) for point in points]))
    return points


def four_cores(point: Point) -> float:
    """Return a rate: batches have a fixed cost, threads beyond the cores spin."""
    workers, batch, threads = point["workers"], point["batch_size"], point["mkl_threads"]
    work = 0.05 + 0.002 * batch
    contention = max(1.0, workers * threads / 4) ** 2
    return float(workers * batch / (work * (0.3 + 0.7 / threads) * contention))


def best_rate(space: Space, rate_of: RateOf) -> float:
    return max(rate_of(point) for point in space.draw(np.random.default_rng(0), 20_000))


@pytest.mark.parametrize("seed", range(3))
def test_sampler_finds_optimum_of_modelled_server_in_12_trials(seed: int) -> None:
    points = search(SPACE, four_cores, 12, seed)
    assert max(map(four_cores, points)) >= 0.95 * best_rate(SPACE, four_cores)


@pytest.mark.parametrize("seed", range(3))
def test_sampler_finds_optimum_of_server_that_contradicts_model(seed: int) -> None:
    def unmodelled(point: Point) -> float:
        batch, netty = point["batch_size"], point["netty_threads"]
        distance = math.log2(batch / 6) ** 2 + math.log2(netty / 2) ** 2
        return 100.0 * math.exp(-0.2 * distance - 0.1 * abs(point["workers"] - 2))

    points = search(SPACE, unmodelled, 30, seed)
    assert max(map(unmodelled, points)) >= 0.9 * best_rate(SPACE, unmodelled)


def test_sampler_avoids_region_of_failures() -> None:
    def limited(point: Point) -> float:
        return 0.0 if point["workers"] * point["batch_size"] > 100 else four_cores(point)

    points = search(SPACE, limited, 24)
    assert max(map(limited, points)) >= 0.9 * best_rate(SPACE, limited)
    assert sum(limited(point) == 0 for point in points[8:]) <= 10


def test_sampler_proposes_each_point_of_small_space_once() -> None:
    axes = {"workers": (1, 2), "batch_size": (1, 8, 64), "environment.X": ("a", "b", "c")}
    space = Space(tuple(Dimension(n, choices=a) for n, a in axes.items()), ServerConfig(), 2)
    points = search(space, lambda point: point["workers"] + len(point["environment.X"]), 18)
    assert len({tuple(point.items()) for point in points}) == 18


def test_sampler_proposes_random_point_before_first_success() -> None:
    point = CapacitySampler(SPACE, 0).propose([SPACE.nearest_point()], [0.0])
    assert point.keys() == SPACE.nearest_point().keys()


def test_sampler_repeats_proposals_with_same_seed() -> None:
    assert search(SPACE, four_cores, 8, 5) == search(SPACE, four_cores, 8, 5)


def settings_point(workers: int, batch_size: int, mkl_threads: int) -> Point:
    settings = {"workers": workers, "batch_size": batch_size, "mkl_threads": mkl_threads}
    return {**SPACE.nearest_point(), **settings}


def test_feasibility_separates_lack_of_memory_from_other_failures() -> None:
    def probability(point: Point, too_large: bool) -> float:
        observations = [
            Observation(settings_point(4, 8, 1), 0.0, too_large=too_large),
            Observation(settings_point(1, 1, 4), 0.0),
            Observation(settings_point(2, 16, 1), 50.0),
        ]
        return float(Feasibility(SPACE, observations).probability([point])[0])

    larger, between = settings_point(4, 16, 1), settings_point(3, 8, 1)
    assert probability(larger, True) < 0.01 < probability(between, True)
    assert probability(between, False) < probability(between, True), (
        "without a reason, any failure may be for lack of memory"
    )


def test_feasibility_learns_a_limit_on_the_batch_alone() -> None:
    observations = [
        Observation(settings_point(w, b, 1), 100.0 * (b <= 32), too_large=b > 32)
        for w, b in ((1, 64), (8, 32), (4, 8), (2, 48))
    ]
    feasibility = Feasibility(SPACE, observations)
    below, above = feasibility.probability([settings_point(8, 30, 1), settings_point(1, 60, 1)])
    assert above < 0.05 < 0.5 < below


def test_feasibility_does_not_blame_memory_if_larger_points_served() -> None:
    failed, served = settings_point(1, 8, 1), settings_point(4, 64, 1)
    near, far = settings_point(1, 8, 1), settings_point(4, 60, 1)
    unexplained = Feasibility(SPACE, [Observation(failed, 0.0), Observation(served, 90.0)])
    at_failure, at_success = unexplained.probability([near, far])
    assert at_failure < 0.5 < at_success


def test_sampler_survives_zeros_equal_points_and_rates_that_are_not_finite(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected_improvement = Prediction.expected_improvement
    improvements: list[float] = []

    def recorded(prediction: Prediction) -> Floats:
        found = expected_improvement(prediction)
        improvements.extend(found.tolist())
        return found

    # What is not a number is replaced before the sampler ranks the points.
    monkeypatch.setattr(Prediction, "expected_improvement", recorded)
    dimensions = (
        Dimension("workers", 0, 4),
        Dimension("batch_size", 1, 64, log=True),
        Dimension("properties.io_ratio", choices=(0, 10, 50)),
        Dimension("environment.X", choices=("a", "b")),
    )
    space = Space(dimensions, ServerConfig(), 2)
    point = {"workers": 0, "batch_size": 8, "properties.io_ratio": 0, "environment.X": "a"}
    points = [point, point, {**point, "workers": 3}, {**point, "batch_size": 64}]
    sampler = CapacitySampler(space, 0)
    for _ in range(3):
        points.append(
            sampler.propose(points, [10.0, 10.0, math.inf, math.nan, *[12.0] * 9][: len(points)])
        )
    assert all(0 <= p["workers"] <= 4 and 1 <= p["batch_size"] <= 64 for p in points)
    observations = [Observation(p, 10.0) for p in points]
    assert 0 <= sampler.improvement_probability(observations) <= 1
    assert improvements and all(map(math.isfinite, improvements))


@pytest.mark.parametrize(
    ("unknown", "probability"),
    [
        pytest.param([], 0.5, id="all draws are known"),
        pytest.param([0], 1 / 3, id="an improvement is unknown"),
        pytest.param([1, 3], 1.0, id="only improvements are known"),
        pytest.param([0, 1, 2, 3], 1.0, id="nothing is known"),
        pytest.param([0, 1, 2], 0.0, id="only a draw without an improvement is known"),
    ],
)
def test_improvement_probability_leaves_out_draws_without_a_factor(
    monkeypatch: pytest.MonkeyPatch, unknown: list[int], probability: float
) -> None:
    def drawn_gains(targets: Targets, points: list[Point], draws: int) -> tuple[Floats, Floats]:
        gains = np.full((4, len(points)), -1.0)
        gains[[0, 2]] = 1.0
        gains[unknown] = math.nan
        return gains, np.full(4, 0.25)

    monkeypatch.setattr(Targets, "drawn_gains", drawn_gains)
    monkeypatch.setattr(Feasibility, "probability", lambda self, points: np.ones(len(points)))
    observations = [Observation(settings_point(w, 8, 1), 10.0 * w) for w in (1, 2)]
    found = CapacitySampler(SPACE, 0).improvement_probability(observations)
    assert found == pytest.approx(probability)


def test_improvement_probability_falls_once_the_space_is_known() -> None:
    axes = {"workers": (1, 2, 3, 4), "batch_size": (1, 8, 64)}
    space = Space(tuple(Dimension(n, choices=a) for n, a in axes.items()), ServerConfig(), 4)

    def observed(points: list[dict[str, Any]]) -> list[Observation]:
        return [Observation(p, 10.0 * p["workers"] * p["batch_size"] ** 0.5) for p in points]

    points = [{"workers": w, "batch_size": b} for w in axes["workers"] for b in axes["batch_size"]]
    few, all_but_worst = observed(points[:3]), observed(points[1:])
    assert CapacitySampler(space, 0).improvement_probability(few) > 0.3
    assert CapacitySampler(space, 0).improvement_probability(all_but_worst) < 0.1
    assert CapacitySampler(space, 0).improvement_probability([]) == 1


def test_posterior_rates_do_not_follow_a_single_high_measurement() -> None:
    point = settings_point(2, 8, 1)
    others = [settings_point(2, b, 1) for b in (6, 7, 9, 10)] * 2
    observations = [Observation(p, 100.0 + i) for i, p in enumerate(others)]
    observations.append(Observation(point, 130.0))
    rates = CapacitySampler(SPACE, 0).posterior_rates(observations)
    assert rates[-1] < 125
