"""The sampler: what it proposes, and that it learns."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from search.spec.space import Dimension, Space, build_space
from search.study.sampler import CapacitySampler, _Feasible, _Points
from serving.config import ServerConfig

SPACE = build_space({}, 4)


def searched(space: Space, rate: Any, trials: int, seed: int = 0) -> list[Mapping[str, Any]]:
    sampler = CapacitySampler(space, seed)
    points: list[Mapping[str, Any]] = list(space.recommended_points())
    while len(points) < trials:
        points.append(sampler.propose(points, [rate(point) for point in points]))
    return points


def four_cores(point: Mapping[str, Any]) -> float:
    """Batches share a fixed cost; threads beyond the cores spin; delays do nothing."""
    workers, batch, threads = point["workers"], point["batch_size"], point["mkl_threads"]
    work = 0.05 + 0.002 * batch
    crowd = max(1.0, workers * threads / 4) ** 2
    return workers * batch / (work * (0.3 + 0.7 / threads) * crowd)


def best_of(space: Space, rate: Any) -> float:
    chance = np.random.default_rng(0)
    return max(rate(point) for point in space.draw(chance, 20_000))


@pytest.mark.parametrize("seed", range(3))
def test_a_server_as_the_model_has_it_is_found_in_few_trials(seed: int) -> None:
    points = searched(SPACE, four_cores, 12, seed)
    assert max(map(four_cores, points)) >= 0.95 * best_of(SPACE, four_cores)


@pytest.mark.parametrize("seed", range(3))
def test_a_server_unlike_the_model_is_found_too(seed: int) -> None:
    def odd(point: Mapping[str, Any]) -> float:
        far = math.log2(point["batch_size"] / 6) ** 2 + math.log2(point["netty_threads"] / 2) ** 2
        return 100.0 * math.exp(-0.2 * far - 0.1 * abs(point["workers"] - 2))

    points = searched(SPACE, odd, 30, seed)
    assert max(map(odd, points)) >= 0.9 * best_of(SPACE, odd)


def test_where_it_fails_is_left_alone() -> None:
    def small(point: Mapping[str, Any]) -> float:
        return 0.0 if point["workers"] * point["batch_size"] > 100 else four_cores(point)

    points = searched(SPACE, small, 24)
    assert max(map(small, points)) >= 0.9 * best_of(SPACE, small)
    assert sum(small(point) == 0 for point in points[8:]) <= 10


def test_nothing_is_proposed_twice_until_all_is_tried() -> None:
    axes = {"workers": (1, 2), "batch_size": (1, 8, 64), "environment.X": ("a", "b", "c")}
    space = Space(tuple(Dimension(n, choices=a) for n, a in axes.items()), ServerConfig(), 2)
    points = searched(space, lambda point: point["workers"] + len(point["environment.X"]), 18)
    assert len({tuple(point.items()) for point in points}) == 18


def test_before_anything_served_it_tries_by_chance() -> None:
    point = CapacitySampler(SPACE, 0).propose([SPACE.nearest_point()], [0.0])
    assert point.keys() == SPACE.nearest_point().keys()


def test_the_same_seed_proposes_the_same() -> None:
    assert searched(SPACE, four_cores, 8, 5) == searched(SPACE, four_cores, 8, 5)


def test_what_was_too_large_is_told_from_what_failed_otherwise() -> None:
    points = [
        {"workers": 4, "batch_size": 8, "mkl_threads": 1},
        {"workers": 1, "batch_size": 1, "mkl_threads": 4},
        {"workers": 2, "batch_size": 16, "mkl_threads": 1},
    ]
    known = _Points(SPACE, [{**SPACE.nearest_point(), **point} for point in points])
    served, too_large = np.array([False, False, True]), np.array([True, False, False])
    nothing = np.zeros(3, bool)
    larger = _Points(SPACE, [{**SPACE.nearest_point(), "workers": 4, "batch_size": 16, "mkl_threads": 1}])
    between = _Points(SPACE, [{**SPACE.nearest_point(), "workers": 3, "batch_size": 8, "mkl_threads": 1}])
    told = _Feasible(known, served, nothing, too_large)
    assert told.chance(larger)[0] < 0.01 < told.chance(between)[0]
    untold = _Feasible(known, served, nothing, nothing)
    assert untold.chance(between)[0] < told.chance(between)[0], "any failure may be of size"
