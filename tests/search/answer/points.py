"""Operating points for tests, made from a few figures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from search.answer.operating_points import LatencyPoint, OperatingPoint
from search.spec.space import Space
from search.study.outcome import Outcome
from search.trial.request import TrialOrigin
from search.trial.result import TrialResult, TrialState
from serving.configuration.config import ServerConfig
from tests.results import trial_result


def point(
    number: int, rate_rps: float, p99_s: float | None = None, **figures: Any
) -> OperatingPoint:
    """Return a point of a configuration that differs by its number."""
    config = ServerConfig(workers=1, batch_size=number + 1)
    return OperatingPoint(number, config, rate_rps, p99_s=p99_s, **figures)


def latencies(rate_rps: float, p99_by_share: dict[float, float]) -> tuple[LatencyPoint, ...]:
    """Return latencies by share; p50 is half of p99, p90 three quarters."""
    return tuple(
        LatencyPoint(share, share * rate_rps, p99_s / 2, 0.75 * p99_s, p99_s)
        for share, p99_s in p99_by_share.items()
    )


def trials(space: Space, count: int, noise: float = 0.0) -> list[TrialResult]:
    """Return trials whose rate, p99 and memory follow the batch size; the last one was pruned."""
    results = []
    sizes = [round(1.9**n) for n in range(count)]
    for number, size in enumerate([*sizes, 20]):
        config = space.config({**space.nearest_point(), "batch_size": size, "workers": 2})
        is_pruned = number == count
        # With noise, neighbouring configurations differ by it squared.
        factor = (1 + noise) ** (-1 if number % 2 else 1)
        results.append(
            trial_result(
                number,
                None if is_pruned else 100 * size**0.4,
                config,
                TrialOrigin.SAMPLED,
                TrialState.PRUNED if is_pruned else TrialState.COMPLETE,
                capacity_rps=100 * size**0.4,
                p99_s=None if is_pruned else 0.05 * size**0.5 * factor,
                peak_memory_mb=round((800 + 4 * size) * factor),
                workers_ready=2,
            )
        )
    return results


def with_trials(outcome: Outcome, count: int, noise: float = 0.0) -> Outcome:
    """Return an outcome with these trials as its results; see `trials`."""
    assert outcome.space is not None
    results = trials(outcome.space, count, noise)
    return replace(outcome, results=results, reference=results[0], best=results[-2])
