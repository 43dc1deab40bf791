"""Measure an endpoint that already runs, with load from this host and without Ray."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from loadgen.connection import check_url
from loadgen.fleet import Fleet
from loadgen.local_process import local_processes
from loadgen.measurement import Measurement
from loadgen.payloads import Payload
from loadgen.rate.goal import Goal
from loadgen.rate.result import SustainedRate
from loadgen.rate.saturate import Saturation, find_saturating_users, slow_goal
from loadgen.rate.search import RateSearch
from loadgen.tls import Tls, find_tls_problem
from search.errors import CommandError
from search.trial.host_lock import exclusive_host
from search.trial.judging import probe_record
from serving.limits import available_cores

MAX_PROCESSES = max(2, available_cores() // 2)

#: Receives what a user waits for: a sentence.
Announce = Callable[[str], None]


async def measure_url(
    url: str,
    payloads: Sequence[Payload],
    goal: Goal,
    users: int | None = None,
    progress: Callable[[str, float], None] = lambda name, rate_rps: None,
    *,
    batch_size: int = 1,
    tls: Tls | None = None,
    announce: Announce = lambda sentence: None,
) -> SustainedRate:
    """Return the sustained rate of an endpoint.

    Args:
        users: of the closed loop, enough to keep the server busy; None to find them. The server
            is assumed to work on half as many requests at once.
        progress: receives each phase's name and rate as it begins.
        batch_size: a guess of how many requests the server takes in one batch.
        tls: how the certificate of an https URL is checked; by the system's authorities if None.
        announce: receives the number of users, and how long the measurement may take.

    Raises:
        InputError: the URL is not valid.
        CommandError: the endpoint's certificate cannot be verified.
        GeneratorLostError: a load generator process was lost twice.
    """
    check_url(url)
    if problem := find_tls_problem(url, tls or Tls()):
        raise CommandError(problem)
    with exclusive_host():
        fleet = Fleet(local_processes(payloads), max_processes=MAX_PROCESSES)
        try:
            await fleet.set_target(url, tls)
            warnings: tuple[str, ...] = ()
            if users is None:
                found = await _find_users(fleet, goal, batch_size, announce)
                users, warnings = found.users, found.warnings
                goal = slow_goal(goal, found.latency_s)
                announce(_announcement(found, goal))
            rate = await RateSearch(
                goal,
                fleet,
                max(users // 2, batch_size, 1),
                users,
                progress=progress,
                announce=lambda left_s: announce(f"about {_format_duration(left_s)} left"),
            ).find()
            return replace(rate, warnings=(*warnings, *rate.warnings))
        finally:
            fleet.close()


async def _find_users(fleet: Fleet, goal: Goal, batch_size: int, announce: Announce) -> Saturation:
    def report_step(users: int, latency_s: float) -> None:
        expected = f", {latency_s:.2g} s or more each" if latency_s else ""
        announce(f"users: {users}{expected}")

    return await find_saturating_users(fleet, goal, batch_size, progress=report_step)


def _announcement(found: Saturation, goal: Goal) -> str:
    if not found.steps:
        return "no request of the first user succeeded"
    # Four rates may fail before bracketing, whose last window may be late.
    longest_s = goal.warmup_limit_s + 5 * goal.window_limit_s + goal.search_limit_s
    return (
        f"{found.users} users saturate the server (about {found.throughput_rps:.3g} rps; one "
        f"request alone takes {found.latency_s:.2g} s). The search takes up to "
        f"{_format_duration(longest_s)}; a window takes up to "
        f"{_format_duration(goal.window_limit_s)}."
    )


def _format_duration(seconds: float) -> str:
    """Return a duration in words.

    >>> _format_duration(90), _format_duration(600)
    ('90 s', '10 min')
    """
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def rate_summary(rate: SustainedRate) -> dict[str, Any]:
    """Return a rate as JSON data: its bounds, its counts and every window."""
    measurements = [probe.measurement for probe in rate.probes]
    latency = rate.best.measurement.latency if rate.best else None
    return {
        "sustained_rps": rate.lower_rps,
        "lower_rps": rate.lower_rps,
        "upper_rps": rate.upper_rps,
        "capacity_rps": rate.capacity_rps,
        "estimate": asdict(rate.estimate) if rate.estimate else None,
        "width": rate.width,
        "reason": rate.reason,
        "warnings": list(rate.warnings),
        "requests_without_failure": rate.requests_without_failure,
        "success_bound": rate.success_bound() if rate.lower_rps else None,
        "p50_s": latency.quantile(0.5) if latency else None,
        "p90_s": latency.quantile(0.9) if latency else None,
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
