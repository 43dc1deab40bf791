"""Measure an endpoint that already runs, with load from this host and without Ray."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from loadgen.fleet import Fleet
from loadgen.local_process import local_processes
from loadgen.measurement import Measurement
from loadgen.payloads import Payload
from loadgen.rate.goal import Goal
from loadgen.rate.result import SustainedRate
from loadgen.rate.search import RateSearch
from loadgen.rate.verdict import success_bound
from search.trial.host_lock import exclusive_host
from search.trial.judging import probe_record
from serving.limits import available_cores

MAX_PROCESSES = max(2, available_cores() // 2)


async def measure_url(
    url: str,
    payloads: Sequence[Payload],
    goal: Goal,
    users: int,
    progress: Callable[[str, float], None],
) -> SustainedRate:
    """Return the sustained rate of an endpoint.

    Args:
        users: of the closed loop, enough to keep the server busy. The server is assumed to work
            on half as many requests at once.
        progress: receives each phase's name and rate as it begins.
    """
    with exclusive_host():
        fleet = Fleet(local_processes(payloads), max_processes=MAX_PROCESSES)
        try:
            await fleet.set_target(url)
            return await RateSearch(
                goal, fleet, max(users // 2, 1), users, progress=progress
            ).find()
        finally:
            fleet.close()


def rate_summary(rate: SustainedRate) -> dict[str, Any]:
    """Return a rate as JSON data: its bounds, its counts and every window."""
    measurements = [probe.measurement for probe in rate.probes]
    latency = rate.best.measurement.latency if rate.best else None
    return {
        "sustained_rps": rate.lower_rps,
        "lower_rps": rate.lower_rps,
        "upper_rps": rate.upper_rps,
        "capacity_rps": rate.capacity_rps,
        "width": rate.width,
        "reason": rate.reason,
        "warnings": list(rate.warnings),
        "requests_without_failure": rate.requests_without_failure,
        "success_bound": success_bound(rate.requests_without_failure),
        "p50_s": latency.quantile(0.5) if latency else None,
        "p99_s": latency.quantile(0.99) if latency else None,
        "scheduled": sum(measurement.scheduled for measurement in measurements),
        "sent": sum(measurement.sent for measurement in measurements),
        "succeeded": sum(measurement.succeeded for measurement in measurements),
        "errors": _count_errors([rate.warmup, *measurements]),
        "windows": [
            {**probe_record(probe), **probe.measurement.summary()} for probe in rate.probes
        ],
    }


def _count_errors(measurements: Sequence[Measurement]) -> dict[str, int]:
    errors: Counter[str] = Counter()
    for measurement in measurements:
        errors.update(measurement.errors)
    return dict(errors)
