"""Rank trials, and compute their values for the sampler. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from loadgen.rate.thresholds import DEFAULT_THRESHOLDS
from search.trial.request import TrialOrigin
from search.trial.result import TrialResult, TrialState
from servetune.errors import FailureKind
from serving.config import ServerConfig


def capacity_ratios(results: Sequence[TrialResult]) -> list[float]:
    """Return sustained rate ÷ capacity of each complete trial."""
    return [r.sustained_rps / r.capacity_rps for r in results if r.sustained_rps and r.capacity_rps]


def capacity_ratio(ratios: Sequence[float]) -> float:
    """Return the expected ratio of a trial whose capacity alone is known; 1 without any trial."""
    # If a closed loop was starved, its capacity is too low, and its ratio too high.
    return min(median(ratios), DEFAULT_THRESHOLDS.capacity_margin) if ratios else 1.0


def sampler_value(result: TrialResult, ratio: float) -> float:
    """Return a trial's value for the sampler, requests/s: always finite, 0 for a failure.

    A complete trial counts with its sustained rate. A pruned trial counts with its capacity ×
    ratio. So does a trial that was limited by the load generator: the configuration did not cause
    that.

    Args:
        ratio: see `capacity_ratio`.
    """
    if result.state is TrialState.COMPLETE:
        return result.sustained_rps or 0.0
    if result.state is TrialState.PRUNED or result.failure is FailureKind.GENERATOR_LIMITED:
        return (result.capacity_rps or 0.0) * ratio
    return 0.0


def reference_of(results: list[TrialResult]) -> TrialResult | None:
    """Return the trial that the others are compared with: the baseline, else the default."""
    for origin in (TrialOrigin.BASELINE, TrialOrigin.DEFAULT):
        references = [r for r in results if r.origin is origin and not r.host_fault]
        if references:
            return references[-1]
    return None


def rates_of(results: list[TrialResult]) -> dict[str, float]:
    """Return the median rate of each configuration, requests/s, by its digest.

    A failure counts as 0. Pruned trials and failures caused by the host are left out.
    """
    rates: dict[str, list[float]] = {}
    for r in results:
        if r.state is not TrialState.PRUNED and not r.host_fault:
            rates.setdefault(r.config.digest, []).append(r.sustained_rps or 0.0)
    return {digest: median(values) for digest, values in rates.items()}


def rate_of(results: list[TrialResult], config: ServerConfig) -> float | None:
    """Return the median rate of a configuration, requests/s; None if it was not measured."""
    return rates_of(results).get(config.digest)


def newest_by_config(results: list[TrialResult]) -> dict[str, TrialResult]:
    """Return the newest measurement that has a rate, by the configuration's digest."""
    return {
        r.config.digest: r
        for r in sorted(results, key=lambda r: r.number)
        if r.state is TrialState.COMPLETE and r.sustained_rps and not r.host_fault
    }


def best_of(results: list[TrialResult]) -> TrialResult | None:
    """Return the newest measurement of the configuration with the highest median rate."""
    rates, newest = rates_of(results), newest_by_config(results)
    return max(newest.values(), key=lambda r: rates[r.config.digest], default=None)


def finalists(
    results: list[TrialResult], count: int, nominated: Sequence[str] = ()
) -> list[ServerConfig]:
    """Return the configurations to confirm, best first.

    Args:
        nominated: digests of the configurations that come first, in this order; the others follow
            by their median rates.
    """
    rates, newest = rates_of(results), newest_by_config(results)
    positive = {digest for digest in newest if rates[digest]}
    order = [digest for digest in nominated if digest in positive]
    order += [d for d in sorted(positive, key=lambda d: -rates[d]) if d not in order]
    return [newest[digest].config for digest in order[:count]]
