"""Measures trials on the host it is placed on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import (
    NODE_ID_LABEL_KEY,
)

from loadgen.fleet import Fleet
from loadgen.rate.goal import Goal
from loadgen.ray_process import LOADGEN_RESOURCE, ray_processes
from search.cluster.placement import SERVING_RESOURCE, Placement
from search.cluster.transfer import files_of
from search.spec.sweep_loads import SweepLoad
from search.trial.observation import TrialProgress
from search.trial.request import TrialRequest
from search.trial.result import TrialResult
from search.trial.runner import run_trial, run_trial_with_retry
from serving.installation import find_installation
from serving.site import Site

#: How often a trial tells of itself; a stop request waits no longer than this.
HEARTBEAT_S = 1.0


@dataclass(frozen=True)
class TrialSetup:
    """What all trials of a run have in common; it travels to each serving host once.

    Attributes:
        site: on the driver's host; python and java are those that the specification names.
        payloads: what is sent; a reference into Ray's store.
        processes, process_limit: of load, at first and at most.
        places: the serving hosts.
        inbox: where the files of trials on other hosts go.
    """

    site: Site
    python: str | None
    java: str | None
    goal: Goal
    payloads: Any
    processes: int
    process_limit: int
    cores: tuple[int, ...]
    loads: tuple[SweepLoad, ...]
    places: Placement
    inbox: Any

    def placement_request(self, on: Iterable[str] | None = None) -> dict[str, Any]:
        """What Ray places together, as a placement group takes it: serving host, load processes.

        Args:
            on: the nodes that may serve; those of the run where none are named.
        """
        serving, load = {"CPU": 1.0, SERVING_RESOURCE: 1.0}, {LOADGEN_RESOURCE: 1.0}
        where = [
            _one_of(on or self.places.by_node),
            *[_one_of(self.places.load)] * self.process_limit,
        ]
        return {"bundles": [serving, *[load] * self.process_limit], "bundle_label_selector": where}


def _one_of(nodes: Iterable[str]) -> dict[str, str]:
    return {NODE_ID_LABEL_KEY: f"in({','.join(nodes)})"}


class TrialActor:
    """Measures on the host that it is on, with load processes where Ray has made room for them."""

    def __init__(self, setup: TrialSetup):
        self._setup = setup
        self._place = setup.places.by_node[ray.get_runtime_context().get_node_id()]
        self._site = replace(setup.site, address=self._place.address)
        if self._place.folder is not None:
            self._site = replace(
                self._site,
                archive=replace(setup.site.archive, path=self._place.archive),
                installation=find_installation(setup.python, setup.java),
                cores=len(os.sched_getaffinity(0)),
            )
        bundles = range(1, setup.process_limit + 1)
        spawn = ray_processes(setup.payloads, setup.cores, bundles)
        self._fleet = Fleet(spawn, setup.processes, setup.process_limit)

    async def run(
        self, request: TrialRequest, folder: str, progress: TrialProgress, twice: bool = False
    ) -> TrialResult:
        """Measure one configuration.

        Args:
            folder: the run's own for this measurement, on the driver's host.
            twice: once more where it was the host's fault.
        """
        there = self._place.folder
        where = Path(folder) if there is None else there / "trial"
        measure = run_trial_with_retry if twice else run_trial
        try:
            return await measure(
                *(request, self._site, self._setup.goal, self._fleet, where, progress, None),
                self._setup.loads,
            )
        finally:
            if there is not None:
                await self._setup.inbox.deliver.remote(folder, files_of(where))
                shutil.rmtree(where, ignore_errors=True)

    def close(self) -> None:
        """End the load processes."""
        self._fleet.close()
