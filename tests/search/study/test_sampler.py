"""The proposals of the sampler on simulated servers."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from search.spec.space import Dimension, Space, build_space
from search.study.sampler import CapacitySampler, _Feasibility, _Features
from serving.config import ServerConfig

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


def test_feasibility_separates_lack_of_memory_from_other_failures() -> None:
    def features(*settings: tuple[int, int, int]) -> _Features:
        names = ("workers", "batch_size", "mkl_threads")
        points = [dict(zip(names, values, strict=True)) for values in settings]
        return _Features(SPACE, [{**SPACE.nearest_point(), **point} for point in points])

    measured = features((4, 8, 1), (1, 1, 4), (2, 16, 1))
    served, too_large = np.array([False, False, True]), np.array([True, False, False])
    none = np.zeros(3, bool)
    larger, between = features((4, 16, 1)), features((3, 8, 1))
    known = _Feasibility(measured, served, none, too_large)
    assert known.probability(larger)[0] < 0.01 < known.probability(between)[0]
    unknown = _Feasibility(measured, served, none, none)
    assert unknown.probability(between)[0] < known.probability(between)[0], (
        "without a reason, any failure may be for lack of memory"
    )
