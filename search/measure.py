"""Measuring without searching: given configurations of one model, interleaved."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from loadgen.fleet import Fleet
from loadgen.ray_process import on_ray
from search.host import only_one
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
                    "results": [r.to_dict() for r in results],
                }
            )
        return {"rounds": len(self.results[0]), "configs": entries}


async def measure_configs(
    spec: StudySpec,
    configs: Sequence[ServerConfig],
    rounds: int,
    progress: Callable[[int, int, Phase], None],
    side_by_side: bool = False,
    keep: Path | None = None,
) -> Rounds:
    """Measure each configuration once a round, each time in a fresh server.

    The order turns around from round to round, so that a drift of the host favours none.

    Args:
        progress: is told round, configuration and phase.
        side_by_side: a round's servers run at the same time and are measured by turns, a window
            each. What the host does meanwhile happens to all of them, and their ratio is surer.
        keep: where each measurement leaves its files, every window among them, in a folder
            `ROUND-CONFIGURATION`, both counted from 0; nowhere where not given.
    """
    site, goal = spec.site(spec.installation()), spec.goal_of_search()
    load, payloads = spec.load, spec.payloads()
    abreast = len(configs) if side_by_side else 1
    with only_one(), local_cluster(abreast * load.most_processes) as folder:
        spawn = on_ray(payloads, load.cores)
        fleets = [Fleet(spawn, load.processes, load.most_processes) for _ in range(abreast)]

        async def measure(number: int, index: int, turn: asyncio.Lock) -> TrialResult:
            def tell(phase: Phase) -> None:
                progress(number, index, phase)

            task = Task(number, Kind.DEFAULT, configs[index])
            where = (keep or folder / "measure") / f"{number}-{index}"
            fleet = fleets[index % abreast]
            result = await run_trial(task, site, goal, fleet, where, tell, turn)
            if result.host_fault:
                result = await run_trial(task, site, goal, fleet, where, tell, turn)
            return result

        results: list[dict[int, TrialResult]] = []
        try:
            for number in range(rounds):
                order = range(len(configs)) if number % 2 == 0 else range(len(configs))[::-1]
                turn = asyncio.Lock()
                if side_by_side:
                    found = await asyncio.gather(*[measure(number, i, turn) for i in order])
                else:
                    found = [await measure(number, i, turn) for i in order]
                results.append(dict(zip(order, found, strict=True)))
        finally:
            for fleet in fleets:
                fleet.close()
    return Rounds(tuple(tuple(row[i] for row in results) for i in range(len(configs))))
