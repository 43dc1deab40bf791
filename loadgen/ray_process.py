"""Load generator processes as Ray actors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from loadgen.client import Client
from loadgen.errors import GeneratorLostError
from loadgen.payloads import Payload
from servetune.errors import ServetuneError

#: The custom resource of hosts that make load; one unit per load generator process.
LOADGEN_RESOURCE = "loadgen"


class _LoadActor(Client):
    """A `Client`; Ray shows its process under this name."""


class RayProcess:
    """A `Client` in an actor; see `fleet.Process`."""

    def __init__(self, actor: Any):
        self._actor = actor

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the `Client`; raise GeneratorLostError if the actor is gone."""
        try:
            return await getattr(self._actor, method).remote(*arguments)
        except RayTaskError as error:
            # Raised by the method: the actor lives.
            if isinstance(error.cause, ServetuneError):
                raise error.cause from None
            raise
        except RayError as error:
            raise GeneratorLostError(str(error).partition("\n")[0]) from error

    def end(self) -> None:
        """Kill the actor."""
        ray.kill(self._actor)


def ray_processes(
    payloads: Sequence[Payload], cores: Collection[int] = (), bundles: Sequence[int] = ()
) -> Callable[[int], RayProcess]:
    """Return a `spawn` for `fleet.Fleet` that starts actors of this cluster.

    Args:
        payloads: the requests.
        cores: cores that they may use on their host; any if empty.
        bundles: the bundles of the current placement group that hold them, one each; Ray places
            them if there are none.
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
