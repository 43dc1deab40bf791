"""Measuring without searching: given configurations of one model, or any URL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from loadgen.client import Client
from loadgen.fleet import Fleet
from loadgen.payloads import Payload
from loadgen.sustained import Goal, Search, SustainedRate, success_bound
from search.result import Kind, Task, TrialResult
from search.spec import StudySpec
from search.study import local_cluster
from search.trial import Phase, run_trial
from serving.config import ServerConfig


@dataclass(frozen=True)
class Rounds:
    """Measurements of several configurations, interleaved: a list for each, one entry a round."""

    results: tuple[tuple[TrialResult, ...], ...]

    def ratios(self, index: int) -> list[float]:
        """Each round's rate of the index-th ÷ that of the first, where both have one."""
        return [
            ours.sustained_rps / first.sustained_rps
            for ours, first in zip(self.results[index], self.results[0], strict=True)
            if ours.sustained_rps and first.sustained_rps
        ]

    def summary(self, names: Sequence[str]) -> dict[str, Any]:
        """Plain JSON data."""
        entries = []
        for index, (name, results) in enumerate(zip(names, self.results, strict=True)):
            ratios = self.ratios(index)
            entries.append(
                {
                    "config": name,
                    "sustained_rps": [r.sustained_rps for r in results],
                    "ratio_to_first": ratios,
                    "median_ratio_to_first": median(ratios) if ratios else None,
                }
            )
        return {"rounds": len(self.results[0]), "configs": entries}


async def measure_configs(
    spec: StudySpec,
    configs: Sequence[ServerConfig],
    rounds: int,
    folder: Path,
    progress: Callable[[int, int, Phase], None],
) -> Rounds:
    """Measure each configuration once a round, each time in a fresh server.

    The order turns around from round to round, so that a drift of the host favours none.

    Args:
        folder: receives each measurement's files in a folder `ROUND-CONFIG`.
        progress: is told round, configuration and phase.
    """
    site, goal = spec.site(spec.installation()), spec.goal_of_search()
    results: list[list[TrialResult]] = [[] for _ in configs]
    with local_cluster(spec.load.processes):
        fleet = Fleet(spec.payloads(), spec.load.processes, spec.load.cores)
        try:
            for number in range(rounds):
                order = list(enumerate(configs))
                for index, config in order if number % 2 == 0 else reversed(order):

                    def tell(phase: Phase, number: int = number, index: int = index) -> None:
                        progress(number, index, phase)

                    task = Task(number, Kind.DEFAULT, config)
                    where = folder / f"{number}-{index}"
                    result = await run_trial(task, site, goal, fleet, where, tell)
                    if result.host_fault:
                        result = await run_trial(task, site, goal, fleet, where, tell)
                    results[index].append(result)
        finally:
            fleet.close()
    return Rounds(tuple(tuple(row) for row in results))


async def measure_url(
    url: str,
    payloads: Sequence[Payload],
    goal: Goal,
    users: int,
    progress: Callable[[Phase], None],
) -> SustainedRate:
    """The sustained rate of an endpoint that already runs, from this process alone.

    Args:
        users: of the closed loop, enough to keep the server busy; half of them is taken for
            what it works on at once.
    """
    client = Client(url, payloads)
    search = Search(
        goal,
        client,
        max(users // 2, 1),
        users,
        progress=lambda name, rate: progress(Phase(name, rate)),
    )
    return await search.find()


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
        "zero_failures_of": found.zero_failures_of,
        "success_bound": success_bound(found.zero_failures_of),
        "p50_s": latency.quantile(0.5) if latency else None,
        "p99_s": latency.quantile(0.99) if latency else None,
        "scheduled": sum(p.measurement.scheduled for p in found.probes),
        "sent": sum(p.measurement.sent for p in found.probes),
        "succeeded": sum(p.measurement.succeeded for p in found.probes),
        "errors": _errors(found),
        "windows": [
            {
                "rate_rps": probe.rate_rps,
                "verdict": probe.verdict.value,
                "reason": probe.reason,
                **probe.measurement.summary(),
            }
            for probe in found.probes
        ],
    }


def _errors(found: SustainedRate) -> dict[str, int]:
    errors: dict[str, int] = {}
    for measurement in (found.warmup, *(probe.measurement for probe in found.probes)):
        for cause, count in measurement.errors.items():
            errors[cause] = errors.get(cause, 0) + count
    return errors
