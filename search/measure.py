"""Measuring without searching: given configurations of one model, interleaved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from loadgen.fleet import Fleet
from loadgen.ray_process import on_ray
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
    progress: Callable[[int, int, Phase], None],
) -> Rounds:
    """Measure each configuration once a round, each time in a fresh server.

    The order turns around from round to round, so that a drift of the host favours none.

    Args:
        progress: is told round, configuration and phase.
    """
    site, goal = spec.site(spec.installation()), spec.goal_of_search()
    results: list[list[TrialResult]] = [[] for _ in configs]
    load = spec.load
    with local_cluster(load.most_processes) as folder:
        spawn = on_ray(spec.payloads(), load.cores)
        fleet = Fleet(spawn, load.processes, load.most_processes)
        try:
            for number in range(rounds):
                order = list(enumerate(configs))
                for index, config in order if number % 2 == 0 else reversed(order):

                    def tell(phase: Phase, number: int = number, index: int = index) -> None:
                        progress(number, index, phase)

                    task = Task(number, Kind.DEFAULT, config)
                    where = folder / "measure" / f"{number}-{index}"
                    result = await run_trial(task, site, goal, fleet, where, tell)
                    if result.host_fault:
                        result = await run_trial(task, site, goal, fleet, where, tell)
                    results[index].append(result)
        finally:
            fleet.close()
    return Rounds(tuple(tuple(row) for row in results))
