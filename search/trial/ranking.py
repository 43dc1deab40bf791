"""Rank trials, and compute their values for the sampler. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from loadgen.rate.thresholds import DEFAULT_THRESHOLDS
from search.trial.objective import Figures, Objective, Shortfall
from search.trial.request import TrialOrigin
from search.trial.result import TrialResult, TrialState
from servetune.errors import FailureKind
from serving.configuration.config import ServerConfig

#: The default objective: the highest rate, without limits.
RATE = Objective()


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


def share_of(results: list[TrialResult], config: ServerConfig) -> float | None:
    """Return the median of rate ÷ capacity of a configuration; None if it was not measured."""
    ratios = capacity_ratios([r for r in results if r.config == config and not r.host_fault])
    return median(ratios) if ratios else None


def figures_of(results: list[TrialResult]) -> dict[str, Figures]:
    """Return the figures of each configuration by its digest; failures of the host do not count."""
    groups: dict[str, list[TrialResult]] = {}
    for result in results:
        if not result.host_fault:
            groups.setdefault(result.config.digest, []).append(result)
    return {digest: Figures.of(group) for digest, group in groups.items()}


def best_of(results: list[TrialResult], objective: Objective = RATE) -> TrialResult | None:
    """Return the newest measurement of the best configuration that meets the objective's limits."""
    newest = newest_by_config(results)
    order = _ranked(results, objective, newest)
    return newest[order[0]] if order else None


def finalists(
    results: list[TrialResult],
    count: int,
    nominated: Sequence[str] = (),
    objective: Objective = RATE,
) -> list[ServerConfig]:
    """Return the configurations to confirm, best first; those that miss a limit are left out.

    Args:
        nominated: digests of the configurations that come first, in this order; the others follow
            by their median scores.
    """
    newest = newest_by_config(results)
    ranked = _ranked(results, objective, newest)
    order = [digest for digest in nominated if digest in ranked]
    order += [digest for digest in ranked if digest not in order]
    return [newest[digest].config for digest in order[:count]]


def closest_of(
    results: list[TrialResult], objective: Objective, count: int = 3
) -> list[tuple[TrialResult, tuple[Shortfall, ...]]]:
    """Return the configurations that miss the limits by least, and what they miss.

    Each is represented by its newest measurement. Those that answered nothing are left out.
    """
    newest = {r.config.digest: r for r in sorted(results, key=lambda r: r.number) if r.capacity_rps}
    found = [
        (newest[digest], missed)
        for digest, figures in figures_of(results).items()
        if digest in newest and (missed := objective.shortfalls(figures))
    ]
    return sorted(found, key=lambda entry: sum(s.excess for s in entry[1]))[:count]


def _ranked(
    results: list[TrialResult], objective: Objective, newest: Mapping[str, TrialResult]
) -> list[str]:
    """Return the digests of the configurations that meet the objective, best first."""
    figures = figures_of(results)
    able = [
        digest
        for digest in newest
        if objective.score(figures[digest]) and not objective.shortfalls(figures[digest])
    ]
    return sorted(able, key=lambda digest: objective.rank(figures[digest]), reverse=True)


def newest_by_config(results: list[TrialResult]) -> dict[str, TrialResult]:
    """Return the newest measurement that has a rate, by the configuration's digest."""
    return {
        r.config.digest: r
        for r in sorted(results, key=lambda r: r.number)
        if r.state is TrialState.COMPLETE and r.sustained_rps and not r.host_fault
    }
