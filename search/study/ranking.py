"""Which trial is best, and the value of each for the sampler. Pure."""

from __future__ import annotations

import math
from statistics import median

from loadgen.rate.thresholds import DEFAULT_THRESHOLDS
from search.trial.request import TrialOrigin
from search.trial.result import TrialResult, TrialState
from servetune.errors import FailureKind
from serving.config import ServerConfig


def sampler_value(result: TrialResult, incumbent_rps: float, ratios: list[float]) -> float:
    """Return a trial's value for the sampler: always finite, on the scale of sustained rates.

    A pruned trial counts by its capacity × the median ratio of sustained rate to capacity, and
    never as much as the rate it could not beat. So does a trial that was limited by the load
    generator, since that is not the configuration's fault.

    Args:
        incumbent_rps: the rate that it was pruned against.
        ratios: sustained ÷ capacity of the complete trials so far.
    """
    if result.state is TrialState.COMPLETE:
        return result.sustained_rps or 0.0
    if result.state is TrialState.PRUNED or result.failure is FailureKind.GENERATOR_LIMITED:
        # A starved closed loop may underestimate by far: it must not inflate the others.
        margin = DEFAULT_THRESHOLDS.capacity_margin
        ratio = min(median(ratios), margin) if ratios else 1.0
        below = incumbent_rps * (1 - (result.rate.width or 0.0)) or math.inf
        return min((result.capacity_rps or 0.0) * ratio, below)
    return 0.0


def reference_of(results: list[TrialResult]) -> TrialResult | None:
    """Return the trial that all are compared with: the baseline, else TorchServe's default."""
    for origin in (TrialOrigin.BASELINE, TrialOrigin.DEFAULT):
        found = [r for r in results if r.origin is origin and not r.host_fault]
        if found:
            return found[-1]
    return None


def rates_of(results: list[TrialResult]) -> dict[str, float]:
    """Return the median rate of each configuration over its measurements, by its digest.

    A measurement that failed through the configuration counts as 0.
    """
    rates: dict[str, list[float]] = {}
    for r in results:
        if r.state is not TrialState.PRUNED and not r.host_fault:
            rates.setdefault(r.config.digest, []).append(r.sustained_rps or 0.0)
    return {digest: median(found) for digest, found in rates.items()}


def rate_of(results: list[TrialResult], config: ServerConfig) -> float | None:
    """Return the median rate of one configuration; None if it was not measured."""
    return rates_of(results).get(config.digest)


def best_of(results: list[TrialResult]) -> TrialResult | None:
    """Return the newest measurement of the configuration with the highest median rate."""
    rates, newest = rates_of(results), _newest(results)
    return max(newest.values(), key=lambda r: rates[r.config.digest], default=None)


def finalists(results: list[TrialResult], count: int) -> list[ServerConfig]:
    """Return the configurations with the highest median rates, best first."""
    rates, newest = rates_of(results), _newest(results)
    known = [digest for digest in newest if rates[digest]]
    return [newest[d].config for d in sorted(known, key=lambda d: -rates[d])[:count]]


def _newest(results: list[TrialResult]) -> dict[str, TrialResult]:
    """Return the newest measurement with a rate of each configuration, by its digest."""
    return {
        r.config.digest: r
        for r in sorted(results, key=lambda r: r.number)
        if r.state is TrialState.COMPLETE and r.sustained_rps and not r.host_fault
    }
