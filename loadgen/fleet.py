"""Many clients as Ray actors: each takes its share, they start together, results are merged."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from loadgen.client import Client
from loadgen.measurement import GeneratorLost, Load, Measurement, Until, merge
from loadgen.payloads import Payload
from loadgen.schedule import Share

#: The custom resource that marks a host for load processes, one unit for each.
LOADGEN_RESOURCE = "loadgen"
_LOOK_S = 0.25


class _LoadActor:
    """A `Client` in a process of its own; every method is a coroutine, so that they interleave."""

    def __init__(self, url: str, payloads: Sequence[Payload], share: Share, cores: Collection[int]):
        if cores:
            os.sched_setaffinity(0, cores)
        self._payloads, self._share = payloads, share
        self._client = Client(url, payloads, share)

    async def aim(self, url: str) -> None:
        self._client = Client(url, self._payloads, self._share)
        await self._client.usual_priority()

    async def run(self, load: Load) -> Measurement:
        return await self._client.run(load)

    async def snapshot(self) -> Measurement | None:
        return self._client.snapshot()

    async def stop(self) -> None:
        self._client.stop()

    async def raise_priority(self) -> bool:
        return await self._client.raise_priority()


class Fleet:
    """Load processes on this cluster, aimed at one URL after another.

    Args:
        payloads: what is sent.
        processes: how many.
        cores: the cores that they may use on their host; any where empty.
        bundles: which bundles of the current placement group hold them, one each; where
            there are none, Ray places them.

    Raises (by `measure`):
        GeneratorLost: a process ended; the next `measure` starts anew with all of them.
    """

    def __init__(
        self,
        payloads: Sequence[Payload],
        processes: int = 1,
        cores: Collection[int] = (),
        bundles: Sequence[int] = (),
    ):
        self._payloads, self._processes, self._cores = payloads, processes, tuple(cores)
        self._bundles = bundles
        self._url = ""
        self._actors: list[Any] = []

    async def aim(self, url: str) -> None:
        """Drive this URL from now on; a process that was lost meanwhile is replaced."""
        self._url = url
        try:
            await self._all("aim", url)
        except RayActorError:
            self.close()
        self._ensure()

    async def measure(self, load: Load, until: Until | None = None) -> Measurement:
        """Offer `load` from all processes; end it early once `until` says so of the sum."""
        self._ensure()
        window = asyncio.gather(*[actor.run.remote(load) for actor in self._actors])
        try:
            while not window.done():
                await asyncio.wait([window], timeout=_LOOK_S if until else None)
                if until and not window.done():
                    parts = await self._all("snapshot")
                    if all(parts) and not window.done() and until(merge(parts)):
                        await self._all("stop")
                        until = None
            return merge(await window)
        except RayError as error:
            self.close()
            raise GeneratorLost(f"a load process was lost: {_first_line(error)}") from error
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            window.cancel()

    async def raise_priority(self) -> bool:
        """Ask for cores before others get them; False where that is not permitted."""
        return all(await self._all("raise_priority"))

    def close(self) -> None:
        """End the processes."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

    def _ensure(self) -> None:
        """Start the processes that are not there."""
        for index in range(len(self._actors), self._processes):
            share = Share(index, self._processes)
            options: dict[str, Any] = {"num_cpus": 0, "max_concurrency": 8}
            group = ray.util.get_current_placement_group()
            if self._bundles and group is not None:
                options["resources"] = {LOADGEN_RESOURCE: 1}
                options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
                    group, placement_group_bundle_index=self._bundles[index]
                )
            actor = ray.remote(_LoadActor).options(**options)
            self._actors.append(actor.remote(self._url, self._payloads, share, self._cores))

    async def _all(self, method: str, *arguments: Any) -> list[Any]:
        calls = [getattr(actor, method).remote(*arguments) for actor in self._actors]
        return await asyncio.gather(*calls)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
