"""Load processes as Ray actors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from loadgen.client import Client
from loadgen.errors import GeneratorLostError
from loadgen.payloads import Payload

#: The custom resource that marks a host for load processes, one unit for each.
LOADGEN_RESOURCE = "loadgen"


class _LoadActor(Client):
    """A `Client` by the name under which Ray shows its process."""


class RayProcess:
    """A `Client` in an actor; see `fleet.Process`."""

    def __init__(self, actor: Any):
        self._actor = actor

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call one of its methods; raises GeneratorLostError where the actor is gone."""
        try:
            return await getattr(self._actor, method).remote(*arguments)
        except RayTaskError:
            raise  # The method's own error; the actor lives.
        except RayError as error:
            raise GeneratorLostError(str(error).partition("\n")[0]) from error

    def end(self) -> None:
        """Kill the actor."""
        ray.kill(self._actor)


def ray_processes(
    payloads: Sequence[Payload], cores: Collection[int] = (), bundles: Sequence[int] = ()
) -> Callable[[int], RayProcess]:
    """A `spawn` for `fleet.Fleet`: its processes are actors of this cluster.

    Args:
        payloads: what they send.
        cores: the cores that they may use on their host; any where empty.
        bundles: which bundles of the current placement group hold them, one each; where
            there are none, Ray places them.
    """

    def spawn(index: int) -> RayProcess:
        options: dict[str, Any] = {"num_cpus": 0, "max_concurrency": 8}
        group = ray.util.get_current_placement_group()
        if bundles and group is not None:
            options["resources"] = {LOADGEN_RESOURCE: 1}
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
                group, placement_group_bundle_index=bundles[index]
            )
        return RayProcess(ray.remote(_LoadActor).options(**options).remote(payloads, "", cores))

    return spawn
