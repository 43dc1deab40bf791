"""Measure trials on one serving host."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import (
    NODE_ID_LABEL_KEY,
)

from loadgen.background import Background, BackgroundLoad
from loadgen.fleet import Fleet
from loadgen.rate.goal import Goal
from loadgen.ray_process import LOADGEN_RESOURCE, ray_processes
from search.cluster.placement import SERVING_RESOURCE, Placement
from search.cluster.transfer import read_files
from search.spec.sweep_loads import SweepLoad
from search.trial.observation import TrialProgress
from search.trial.request import TrialRequest
from search.trial.result import TrialResult
from search.trial.runner import run_trial, run_trial_with_retry
from serving.installation import find_installation
from serving.site import Site

#: A running trial answers at least this often; a stop request waits no longer.
HEARTBEAT_S = 1.0


@dataclass(frozen=True)
class TrialSetup:
    """The data that all trials of a run share; each serving host receives it once.

    Attributes:
        site: of the driver's host.
        python, java: of the serving hosts, if the specification names them.
        payloads: reference to the `Payload`s in Ray's object store.
        processes, process_limit: load generator processes of a trial, at first and at most.
        cores: that load generator processes may use; all if empty.
        loads: of a sweep; empty for a rate search.
        mix: models that the payloads are for; only the tuned one if empty.
        background: loads of other models, with references to their payloads.
        inbox: the `Inbox` actor for trials' files; None on a single host.
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
    placement: Placement
    inbox: Any
    mix: tuple[str, ...] = ()
    background: tuple[BackgroundLoad, ...] = ()

    @property
    def process_total(self) -> int:
        """Maximum number of load generator processes of a trial, the background's included."""
        return self.process_limit + len(self.background)

    def placement_request(self, serving: Iterable[str] | None = None) -> dict[str, Any]:
        """Return a placement group's arguments: a bundle for the trial, one per process of load.

        Args:
            serving: ids of the nodes that may serve; None for all of the run's.
        """
        trial, load = {"CPU": 1.0, SERVING_RESOURCE: 1.0}, {LOADGEN_RESOURCE: 1.0}
        trial_nodes = _one_of(serving or self.placement.serving)
        load_nodes = _one_of(self.placement.loadgen)
        return {
            "bundles": [trial, *[load] * self.process_total],
            "bundle_label_selector": [trial_nodes, *[load_nodes] * self.process_total],
        }


def _one_of(node_ids: Iterable[str]) -> dict[str, str]:
    return {NODE_ID_LABEL_KEY: f"in({','.join(node_ids)})"}


class TrialActor:
    """Measures trials on its host; its load generator processes are in its placement group."""

    def __init__(self, setup: TrialSetup):
        self._setup = setup
        self._host = setup.placement.serving[ray.get_runtime_context().get_node_id()]
        self._site = replace(setup.site, address=self._host.address)
        if self._host.folder is not None:
            self._site = replace(
                self._site,
                archive=replace(setup.site.archive, path=self._host.archive),
                others=tuple(
                    replace(archive, path=path)
                    for archive, path in zip(setup.site.others, self._host.others, strict=True)
                ),
                installation=find_installation(setup.python, setup.java),
            )
        bundles = range(1, setup.process_limit + 1)
        spawn = ray_processes(setup.payloads, setup.cores, bundles)
        self._fleet = Fleet(spawn, setup.processes, setup.process_limit)
        self._background = Background(
            setup.background,
            [
                Fleet(ray_processes(each.payloads, setup.cores, [bundle]))
                for bundle, each in enumerate(setup.background, setup.process_limit + 1)
            ],
        )

    async def run(
        self, request: TrialRequest, folder: str, progress: TrialProgress, retry: bool = False
    ) -> TrialResult:
        """Measure one configuration.

        Args:
            folder: receives the trial's files, on the driver's host.
            retry: repeat a measurement once if it failed through the host's fault.
        """
        host_folder = self._host.folder
        trial_folder = Path(folder) if host_folder is None else host_folder / "trial"
        measure = run_trial_with_retry if retry else run_trial
        setup = self._setup
        shared = (setup.loads, setup.mix, self._background)
        try:
            return await measure(
                *(request, self._site, setup.goal, self._fleet, trial_folder, progress, None),
                *shared,
            )
        finally:
            if host_folder is not None:
                await self._setup.inbox.deliver.remote(folder, read_files(trial_folder))
                shutil.rmtree(trial_folder, ignore_errors=True)

    def close(self) -> None:
        """End the load generator processes."""
        self._fleet.close()
        self._background.close()
