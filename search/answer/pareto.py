"""The Pareto front: configurations that no other one beats in everything. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from search.answer.operating_points import OperatingPoint, Role, measured_points
from search.study.outcome import Outcome


def pareto_points(outcome: Outcome) -> list[OperatingPoint]:
    """Return the measured points of a run with all their roles, by the number of the trial."""
    points = measured_points(outcome)
    roles = {Role.KNEE: knee(pareto_front(points)), Role.MAX: highest_rate(points)}
    for role, holder in roles.items():
        points = [p.with_role(role) if holder and p.config == holder.config else p for p in points]
    return points


def pareto_front(points: Sequence[OperatingPoint]) -> list[OperatingPoint]:
    """Return the points that no other point dominates, by rising rate.

    A point dominates another if it is at least as good in rate, p99 latency, memory, GPU memory
    and number of workers, and better in one of them. An unknown value is worse than any known one.
    Of points with equal values all stay.
    """
    costs = [_costs(point) for point in points]
    front = [
        point
        for point, cost in zip(points, costs, strict=True)
        if not any(_dominates(other, cost) for other in costs)
    ]
    return sorted(front, key=lambda point: point.sustained_rps)


def _costs(point: OperatingPoint) -> tuple[float, ...]:
    """Return the values that are compared, each the better the lower it is."""
    values = (point.p99_s, point.memory_mb, point.gpu_memory_mb, point.workers)
    return (-point.sustained_rps, *(math.inf if value is None else value for value in values))


def _dominates(costs: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return costs != other and all(a <= b for a, b in zip(costs, other, strict=True))


def highest_rate(points: Sequence[OperatingPoint]) -> OperatingPoint | None:
    """Return the measured point with the highest rate; None without one."""
    measured = [point for point in points if point.is_measured]
    return max(measured, key=lambda point: point.sustained_rps, default=None)


def knee(points: Sequence[OperatingPoint]) -> OperatingPoint | None:
    """Return the point after which more rate costs the most latency; None without one.

    It is the measured point farthest from the chord between the lowest latency and the highest
    rate, on its side of more rate and less latency, where the rate and log p99 are normalised to
    0..1. There is none with fewer than three points that differ in both, or if all others are on
    the chord or beyond it.
    """
    curve = _rate_latency_front(points)
    if len(curve) < 3:
        return None
    rates = [point.sustained_rps for point, _ in curve]
    logs = [math.log(p99_s) for _, p99_s in curve]

    def distance(index: int) -> float:
        rate = (rates[index] - rates[0]) / (rates[-1] - rates[0])
        return rate - (logs[index] - logs[0]) / (logs[-1] - logs[0])

    farthest = max(range(1, len(curve) - 1), key=distance)
    # Rounding alone must not make a knee of a straight line.
    return curve[farthest][0] if distance(farthest) > 1e-9 else None


def _rate_latency_front(
    points: Sequence[OperatingPoint],
) -> list[tuple[OperatingPoint, float]]:
    """Return the points that no other one beats in rate and p99, with their p99, by rate."""
    known = [(p, p.p99_s) for p in points if p.is_measured and p.p99_s]
    front: list[tuple[OperatingPoint, float]] = []
    for point, p99_s in sorted(known, key=lambda entry: (-entry[0].sustained_rps, entry[1])):
        if not front or p99_s < front[-1][1]:
            front.append((point, p99_s))
    return front[::-1]
