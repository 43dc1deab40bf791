"""Measuring without searching: given configurations of one model, interleaved."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from loadgen.fleet import Fleet
from loadgen.ray_process import on_ray
from search.cluster import ray_cluster
from search.host import only_one
from search.result import Kind, Seen, Task, TrialResult
from search.rounds import Rounds, order
from search.spec import StudySpec
from search.trial import Phase, run_twice
from serving.config import ServerConfig


async def measure_configs(
    spec: StudySpec,
    configs: Sequence[ServerConfig],
    rounds: int,
    progress: Callable[[int, int, Phase], None],
    side_by_side: bool = False,
    keep: Path | None = None,
) -> Rounds:
    """Measure each configuration once a round, each time in a fresh server.

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
    with only_one(), ray_cluster(processes=abreast * load.most_processes) as folder:
        spawn = on_ray(payloads, load.cores)
        fleets = [Fleet(spawn, load.processes, load.most_processes) for _ in range(abreast)]

        async def measure(number: int, index: int, turn: asyncio.Lock) -> TrialResult:
            def tell(told: Phase | Seen) -> None:
                if isinstance(told, Phase):
                    progress(number, index, told)

            task = Task(number, Kind.DEFAULT, configs[index])
            where = (keep or folder / "measure") / f"{number}-{index}"
            fleet = fleets[index % abreast]
            return await run_twice(task, site, goal, fleet, where, tell, turn)

        results: list[dict[int, TrialResult]] = []
        try:
            for number in range(rounds):
                indices, turn = order(number, len(configs)), asyncio.Lock()
                if side_by_side:
                    found = await asyncio.gather(*[measure(number, i, turn) for i in indices])
                else:
                    found = [await measure(number, i, turn) for i in indices]
                results.append(dict(zip(indices, found, strict=True)))
        finally:
            for fleet in fleets:
                fleet.close()
    return Rounds(tuple(tuple(row[i] for row in results) for i in range(len(configs))))
