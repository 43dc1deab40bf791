"""Measure given configurations of one model, interleaved, without a search."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from loadgen.background import Background
from loadgen.fleet import Fleet
from loadgen.ray_process import ray_processes
from search.cluster.folders import unpacked_archive
from search.cluster.ray_session import ray_cluster
from search.confirmation.rounds import Rounds, measurement_order
from search.spec.schema import StudySpec
from search.trial.host_lock import exclusive_host
from search.trial.observation import Phase, WindowSummary
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import TrialResult
from search.trial.runner import run_trial_with_retry
from serving.configuration.config import ServerConfig
from serving.configuration.key_pair import KeyPair
from serving.site import Site

#: The closed loop of a server whose speed varies takes up to this long, unless the goal's limit is
#: longer. Unlike a trial, a measurement is not compared with many others: it has to repeat.
CLOSED_LOOP_S = 30.0


async def measure_configs(
    spec: StudySpec,
    configs: Sequence[ServerConfig],
    rounds: int,
    progress: Callable[[int, int, Phase], None],
    side_by_side: bool = False,
    keep: Path | None = None,
    key_pairs: Sequence[KeyPair | None] = (),
) -> Rounds:
    """Measure each configuration once per round, each time in a new server.

    Args:
        progress: receives the round, the configuration's index and the phase.
        side_by_side: run a round's servers at the same time, one window at a time in turn.
            Disturbances of the host then affect all of them, so that their ratios vary less.
        keep: receives the files of each measurement, with every window, in a folder
            `ROUND-CONFIGURATION`, both counted from 0; None keeps no files.
        key_pairs: of each configuration's file, with which it serves over https; empty if the
            configurations are not from files: they serve with those of the specification's
            baseline.
    """
    site, goal = spec.site(spec.installation()), spec.rate_goal()
    goal = replace(goal, warmup_limit_s=max(goal.warmup_limit_s, CLOSED_LOOP_S))
    load, payloads, background_loads = spec.load, spec.payloads(), spec.background_loads()
    concurrent = len(configs) if side_by_side else 1
    origins = origins_of(configs, spec.study_space().default_config, bool(key_pairs))
    with contextlib.ExitStack() as stack:
        stack.enter_context(exclusive_host())
        archive, *others = (stack.enter_context(unpacked_archive(a)) for a in site.archives)
        site = replace(site, archive=archive, others=tuple(others))
        processes = concurrent * load.process_total
        folder = stack.enter_context(ray_cluster(processes=processes))
        sites = [_with_key_pair(site, key_pair) for key_pair in key_pairs] or [site] * len(configs)
        spawn = ray_processes(payloads, load.cores)
        fleets = [Fleet(spawn, load.processes, load.process_limit) for _ in range(concurrent)]
        backgrounds = [
            Background(
                background_loads,
                [Fleet(ray_processes(each.payloads, load.cores)) for each in background_loads],
            )
            for _ in range(concurrent)
        ]

        async def measure(round_number: int, index: int, turn: asyncio.Lock) -> TrialResult:
            def report_phase(event: Phase | WindowSummary) -> None:
                if isinstance(event, Phase):
                    progress(round_number, index, event)

            return await run_trial_with_retry(
                TrialRequest(round_number, origins[index], configs[index]),
                sites[index],
                goal,
                fleets[index % concurrent],
                (keep or folder / "measure") / f"{round_number}-{index}",
                report_phase,
                turn,
                (),
                tuple(load.mix),
                backgrounds[index % concurrent],
            )

        results: list[dict[int, TrialResult]] = []
        try:
            for number in range(rounds):
                indices, turn = measurement_order(number, range(len(configs))), asyncio.Lock()
                if side_by_side:
                    measured = await asyncio.gather(*[measure(number, i, turn) for i in indices])
                else:
                    measured = [await measure(number, i, turn) for i in indices]
                results.append(dict(zip(indices, measured, strict=True)))
        finally:
            for fleet, background in zip(fleets, backgrounds, strict=True):
                fleet.close()
                background.close()
    return Rounds(tuple(tuple(row[i] for row in results) for i in range(len(configs))))


def origins_of(
    configs: Sequence[ServerConfig], default: ServerConfig, are_files: bool
) -> list[TrialOrigin]:
    """Return the origin of each configuration: a file is in use, even if it changes nothing."""
    return [
        TrialOrigin.DEFAULT if config == default and not are_files else TrialOrigin.BASELINE
        for config in configs
    ]


def _with_key_pair(site: Site, key_pair: KeyPair | None) -> Site:
    variables = key_pair.variables() if key_pair else {}
    return replace(site, key_pair=key_pair, secrets={**site.secrets, **variables})
