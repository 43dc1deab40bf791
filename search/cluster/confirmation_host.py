"""Measure a confirmation on one host of the cluster."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.placement_group import (
    placement_group,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from search.cluster.placement import Node, live_nodes
from search.cluster.trial_actor import HEARTBEAT_S, TrialActor, TrialSetup
from search.errors import ClusterError
from search.trial.observation import Phase, TrialProgress, WindowSummary
from search.trial.request import TrialRequest
from search.trial.result import TrialResult

_STOP_TIMEOUT_S, _PLACEMENT_TIMEOUT_S, _ANSWER_TIMEOUT_S = 40.0, 60.0, 60.0


class ReportingTrialActor(TrialActor):
    """A trial actor that the driver calls; it keeps the trial's events until they are read."""

    def __init__(self, setup: TrialSetup):
        super().__init__(setup)
        self._events: list[Phase | WindowSummary] = []

    async def measure(self, request: TrialRequest, folder: str) -> TrialResult:
        """See `TrialActor.run`."""
        return await self.run(request, folder, self._events.append, retry=True)

    async def take_events(self) -> list[Phase | WindowSummary]:
        """Return the events since the last call."""
        events, self._events = self._events, []
        return events


class ConfirmationHost:
    """The one host on which a confirmation is measured, as an asynchronous context.

    Raises:
        ClusterError: no serving host is left or has room, or the chosen host is lost.
    """

    def __init__(self, setup: TrialSetup):
        self._setup = setup
        self._actor: Any = None

    async def __aenter__(self) -> ConfirmationHost:
        serving = [node for node in live_nodes() if node.id in self._setup.placement.serving]
        if not serving:
            raise ClusterError("no serving host is left for the confirmation")
        self._node: Node = serving[0]
        self._group = placement_group(**self._setup.placement_request([self._node.id]))
        try:
            await asyncio.wait_for(self._group.ready(), _PLACEMENT_TIMEOUT_S)
        except TimeoutError:
            remove_placement_group(self._group)
            raise ClusterError(
                f"{self._node} had no room for the confirmation within {_PLACEMENT_TIMEOUT_S:.0f} s"
            ) from None
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._actor is not None:
            ray.kill(self._actor)
        remove_placement_group(self._group)

    async def measure(
        self, request: TrialRequest, folder: Path, progress: TrialProgress
    ) -> TrialResult:
        """Measure a configuration on the host.

        The loss of the trial's process is a failed result; the next call starts a new process.

        Args:
            folder: receives the measurement's files, on the driver's host.
            progress: receives each phase as it begins, and each window as it ends.
        """
        if self._actor is None:
            if self._node not in live_nodes():
                raise ClusterError(f"{self._node} left the cluster during the confirmation")
            strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=0)
            options = {"num_cpus": 1, "scheduling_strategy": strategy}
            self._actor = ray.remote(ReportingTrialActor).options(**options).remote(self._setup)
        reference = self._actor.measure.remote(request, str(folder))
        measurement = asyncio.wrap_future(reference.future())
        # The loss of the actor may be noticed by another call first: nobody waits for this one.
        measurement.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            while not measurement.done():
                await asyncio.wait({measurement}, timeout=HEARTBEAT_S)
                events = self._actor.take_events.remote()
                for event in await asyncio.wait_for(events, _ANSWER_TIMEOUT_S):
                    progress(event)
            result: TrialResult = measurement.result()
            return result
        except RayTaskError as error:
            raise error.cause from error
        except TimeoutError:
            raise ClusterError(
                f"{self._node} did not answer within {_ANSWER_TIMEOUT_S:.0f} s"
            ) from None
        except RayActorError:
            self._actor = None
            return TrialResult.process_lost(request)
        except asyncio.CancelledError:
            ray.cancel(reference)
            with contextlib.suppress(RayError, TimeoutError):
                await asyncio.wait_for(measurement, _STOP_TIMEOUT_S)
            raise
