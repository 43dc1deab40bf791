"""Measuring any URL that already serves, from this host alone: without Ray."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from loadgen.fleet import Fleet
from loadgen.local_process import local_processes
from loadgen.payloads import Payload
from loadgen.rate.goal import Goal
from loadgen.rate.result import SustainedRate
from loadgen.rate.search import RateSearch
from loadgen.rate.verdict import success_bound
from search.trial.host_lock import exclusive_host
from search.trial.judging import probe_record

MOST_PROCESSES = max(2, (os.cpu_count() or 1) // 2)


async def measure_url(
    url: str,
    payloads: Sequence[Payload],
    goal: Goal,
    users: int,
    progress: Callable[[str, float], None],
) -> SustainedRate:
    """The sustained rate of an endpoint that already runs, from this host alone.

    Args:
        users: of the closed loop, enough to keep the server busy; half of them is taken for
            what it works on at once.
    """
    with exclusive_host():
        fleet = Fleet(local_processes(payloads), most=MOST_PROCESSES)
        try:
            await fleet.set_target(url)
            return await RateSearch(
                goal, fleet, max(users // 2, 1), users, progress=progress
            ).find()
        finally:
            fleet.close()


def rate_summary(found: SustainedRate) -> dict[str, Any]:
    """Plain JSON data of a rate: the bounds, the counts, every window."""
    best = found.best
    latency = best.measurement.latency if best else None
    return {
        "sustained_rps": found.lower_rps,
        "lower_rps": found.lower_rps,
        "upper_rps": found.upper_rps,
        "capacity_rps": found.capacity_rps,
        "width": found.width,
        "reason": found.reason,
        "warnings": list(found.warnings),
        "requests_without_failure": found.requests_without_failure,
        "success_bound": success_bound(found.requests_without_failure),
        "p50_s": latency.quantile(0.5) if latency else None,
        "p99_s": latency.quantile(0.99) if latency else None,
        "scheduled": sum(p.measurement.scheduled for p in found.probes),
        "sent": sum(p.measurement.sent for p in found.probes),
        "succeeded": sum(p.measurement.succeeded for p in found.probes),
        "errors": _errors(found),
        "windows": [
            {**probe_record(probe), **probe.measurement.summary()} for probe in found.probes
        ],
    }


def _errors(found: SustainedRate) -> dict[str, int]:
    errors: dict[str, int] = {}
    for measurement in (found.warmup, *(probe.measurement for probe in found.probes)):
        for cause, count in measurement.errors.items():
            errors[cause] = errors.get(cause, 0) + count
    return errors
