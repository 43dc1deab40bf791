"""The Pareto front and its knee."""

from __future__ import annotations

import random

import pytest

from search.answer.operating_points import OperatingPoint
from search.answer.pareto import highest_rate, knee, pareto_front
from tests.search.answer.points import point


def numbers(points: list[OperatingPoint]) -> list[int | None]:
    return [p.number for p in points]


def test_pareto_front_leaves_out_what_another_point_beats() -> None:
    points = [point(0, 100, 0.5), point(1, 200, 0.4), point(2, 150, 0.1)]
    assert numbers(pareto_front(points)) == [2, 1]


@pytest.mark.parametrize(
    "advantage", [{"memory_mb": 500}, {"workers": 1}, {"gpu_memory_mb": 100}, {"p99_s": 0.05}]
)
def test_pareto_front_keeps_a_slower_point_with_one_advantage(advantage: dict[str, float]) -> None:
    common = {"memory_mb": 900, "workers": 4, "gpu_memory_mb": 300, "p99_s": 0.5}
    points = [point(0, 200, **common), point(1, 100, **{**common, **advantage})]
    assert numbers(pareto_front(points)) == [1, 0]
    assert numbers(pareto_front([points[0], point(2, 100, **common)])) == [0]


def test_pareto_front_treats_an_unknown_value_as_the_worst() -> None:
    known, unknown = point(0, 100, 0.5, memory_mb=800), point(1, 100, 0.5)
    assert numbers(pareto_front([unknown, known])) == [0]
    assert numbers(pareto_front([point(2, 90, 0.5), unknown])) == [1]


def test_pareto_front_keeps_equal_points_and_accepts_none() -> None:
    assert numbers(pareto_front([point(0, 100, 0.5), point(1, 100, 0.5)])) == [0, 1]
    assert pareto_front([]) == []


def test_pareto_front_dominates_every_other_point_in_random_sets() -> None:
    rng = random.Random(1)
    for _ in range(50):
        points = [
            point(n, rng.uniform(1, 9), rng.uniform(0.1, 2), memory_mb=rng.randrange(4), workers=1)
            for n in range(12)
        ]
        front = pareto_front(points)
        for p in points:
            beaten = [
                q.number
                for q in front
                if q.sustained_rps >= p.sustained_rps
                and (q.p99_s or 0) <= (p.p99_s or 0)
                and (q.memory_mb or 0) <= (p.memory_mb or 0)
                and q.number != p.number
            ]
            assert bool(beaten) != (p in front)


def test_knee_is_the_point_farthest_from_the_chord() -> None:
    # By rate: 0, 0.5, 0.8, 1; by log p99: 0, 0.05, 0.2, 1. Distances × √2: 0.45, 0.6.
    points = [point(0, 100, 0.1), point(1, 150, 0.1122), point(2, 180, 0.1585), point(3, 200, 1.0)]
    assert (found := knee(points)) and found.number == 2


def test_knee_does_not_depend_on_units_or_order() -> None:
    points = [point(0, 100, 0.1), point(1, 180, 0.2), point(2, 190, 0.5), point(3, 200, 1.0)]
    scaled = [point(p.number or 0, 7 * p.sustained_rps, 13 * (p.p99_s or 0)) for p in points[::-1]]
    assert (first := knee(points)) and (second := knee(scaled)) and first.number == second.number


@pytest.mark.parametrize(
    "rates_and_p99",
    [
        [],
        [(100, 0.1)],
        [(100, 0.1), (200, 1.0)],
        [(100, 0.1), (150, 10**-0.5), (200, 1.0)],  # on the chord
        [(100, 0.1), (120, 0.9), (200, 1.0)],  # beyond it
        [(100, 0.5), (150, 0.5), (200, 0.5)],  # the fastest has the lowest latency
        [(100, None), (150, None), (200, None)],
    ],
)
def test_knee_is_none_without_a_bend(rates_and_p99: list[tuple[float, float | None]]) -> None:
    assert knee([point(n, rate, p99) for n, (rate, p99) in enumerate(rates_and_p99)]) is None


def test_knee_and_highest_rate_ignore_predicted_points() -> None:
    points = [point(0, 100, 0.1), point(1, 200, 1.0)]
    predicted = point(2, 300, 0.2, is_measured=False)
    assert knee([*points, predicted]) is None
    assert highest_rate([*points, predicted]) == points[1]
    assert highest_rate([predicted]) is None
