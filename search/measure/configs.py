"""Measuring without searching: given configurations of one model, interleaved."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from loadgen.fleet import Fleet
from loadgen.ray_process import ray_processes
from search.cluster.ray_session import ray_cluster
from search.spec.schema import StudySpec
from search.study.rounds import Rounds, order
from search.trial.host_lock import exclusive_host
from search.trial.observation import Phase, WindowSummary
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import TrialResult
from search.trial.runner import run_trial_with_retry
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
    site, goal = spec.site(spec.installation()), spec.rate_goal()
    load, payloads = spec.load, spec.payloads()
    abreast = len(configs) if side_by_side else 1
    with exclusive_host(), ray_cluster(processes=abreast * load.process_limit) as folder:
        spawn = ray_processes(payloads, load.cores)
        fleets = [Fleet(spawn, load.processes, load.process_limit) for _ in range(abreast)]

        async def measure(number: int, index: int, turn: asyncio.Lock) -> TrialResult:
            def tell(told: Phase | WindowSummary) -> None:
                if isinstance(told, Phase):
                    progress(number, index, told)

            request = TrialRequest(number, TrialOrigin.DEFAULT, configs[index])
            where = (keep or folder / "measure") / f"{number}-{index}"
            fleet = fleets[index % abreast]
            return await run_trial_with_retry(request, site, goal, fleet, where, tell, turn)

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
