"""The one host on which a confirmation measures."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.placement_group import (
    placement_group,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from search.cluster.placement import Node, nodes
from search.cluster.trial_actor import HEARTBEAT_S, TrialActor, TrialSetup
from search.errors import ClusterError
from search.trial.observation import Phase, WindowSummary
from search.trial.request import TrialRequest
from search.trial.result import TrialResult
from servetune.errors import FailureKind

_STOP_S = 40.0
_PLACED_S = 60.0


class ReportingTrialActor(TrialActor):
    """A bench that is spoken to from the driver."""

    def __init__(self, setup: TrialSetup):
        super().__init__(setup)
        self._news: list[Phase | WindowSummary] = []

    async def measure(self, request: TrialRequest, folder: str) -> TrialResult:
        """See `Bench.run`."""
        return await self.run(request, folder, self._news.append, twice=True)

    async def news(self) -> list[Phase | WindowSummary]:
        """What has happened since this was last asked."""
        news, self._news = self._news, []
        return news


class ConfirmationHost:
    """The one host on which a confirmation measures, as an asynchronous context.

    Raises:
        ClusterError: no host is left, or the one that was taken leaves.
    """

    def __init__(self, setup: TrialSetup):
        self._setup = setup
        self._actor: Any = None

    async def __aenter__(self) -> ConfirmationHost:
        served = [node for node in nodes() if node.id in self._setup.places.by_node]
        if not served:
            raise ClusterError("no host that served is left to confirm on")
        self._host: Node = served[0]
        self._group = placement_group(**self._setup.placement_request([self._host.id]))
        try:
            await asyncio.wait_for(self._group.ready(), _PLACED_S)
        except TimeoutError:
            remove_placement_group(self._group)
            raise self._gone(f"had no room for the confirmation within {_PLACED_S:.0f} s") from None
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._actor is not None:
            ray.kill(self._actor)
        remove_placement_group(self._group)

    def _gone(self, what: str) -> ClusterError:
        return ClusterError(f"{self._host} {what}")

    async def measure(
        self, request: TrialRequest, folder: Path, told: Callable[[Phase | WindowSummary], None]
    ) -> TrialResult:
        """Measure a configuration there; a process that is lost is its result's cause."""
        if self._actor is None:
            if self._host not in nodes():
                raise self._gone("left while it confirmed")
            first = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=0)
            options = {"num_cpus": 1, "scheduling_strategy": first}
            self._actor = ray.remote(ReportingTrialActor).options(**options).remote(self._setup)
        work = self._actor.measure.remote(request, str(folder))
        try:
            waiting = asyncio.ensure_future(asyncio.wrap_future(work.future()))
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=HEARTBEAT_S)
                for news in await asyncio.wait_for(self._actor.news.remote(), _PLACED_S):
                    told(news)
            found: TrialResult = waiting.result()
            return found
        except RayTaskError as error:
            raise error.cause from error
        except TimeoutError:
            raise self._gone("does not answer") from None
        except RayActorError:
            self._actor = None
            return TrialResult.failed(
                request,
                FailureKind.TRIAL_PROCESS_LOST,
                "trial process lost: it ended before it could report",
                host_fault=True,
            )
        except asyncio.CancelledError:
            ray.cancel(work)
            with contextlib.suppress(RayError, TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(work.future()), _STOP_S)
            raise
