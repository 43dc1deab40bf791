"""Trials on the hosts of a Ray cluster: Tune's view of one, and the confirmation's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import shutil
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.placement_group import (
    NODE_ID_LABEL_KEY,
    placement_group,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from loadgen.fleet import Fleet
from loadgen.rate.goal import Goal
from loadgen.ray_process import LOADGEN_RESOURCE, on_ray
from search.cluster import SERVING_RESOURCE, Node, Places, files_of, nodes
from search.errors import ClusterError
from search.loads import Offered
from search.result import Seen, State, Task, TrialResult
from search.trial import Phase, Progress, run_trial, run_twice
from serving.installation import find_installation
from serving.site import Site

#: How often a trial tells of itself; a stop request waits no longer than this.
HEARTBEAT_S = 1.0
_STOP_S = 40.0
_PLACED_S = 60.0


@dataclass(frozen=True)
class TrialSetup:
    """What all trials of a run have in common; it travels to each serving host once.

    Attributes:
        site: on the driver's host; python and java are those that the specification names.
        payloads: what is sent; a reference into Ray's store.
        processes, most_processes: of load, at first and at most.
        places: the serving hosts.
        inbox: where the files of trials on other hosts go.
    """

    site: Site
    python: str | None
    java: str | None
    goal: Goal
    payloads: Any
    processes: int
    most_processes: int
    cores: tuple[int, ...]
    loads: tuple[Offered, ...]
    places: Places
    inbox: Any

    def request(self, on: Iterable[str] | None = None) -> dict[str, Any]:
        """What Ray places together, as a placement group takes it: serving host, load processes.

        Args:
            on: the nodes that may serve; those of the run where none are named.
        """
        serving, load = {"CPU": 1.0, SERVING_RESOURCE: 1.0}, {LOADGEN_RESOURCE: 1.0}
        where = [
            _one_of(on or self.places.by_node),
            *[_one_of(self.places.load)] * self.most_processes,
        ]
        return {"bundles": [serving, *[load] * self.most_processes], "bundle_label_selector": where}


def _one_of(nodes: Iterable[str]) -> dict[str, str]:
    return {NODE_ID_LABEL_KEY: f"in({','.join(nodes)})"}


class Bench:
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
        bundles = range(1, setup.most_processes + 1)
        spawn = on_ray(setup.payloads, setup.cores, bundles)
        self._fleet = Fleet(spawn, setup.processes, setup.most_processes)

    async def run(
        self, task: Task, folder: str, progress: Progress, twice: bool = False
    ) -> TrialResult:
        """Measure one configuration.

        Args:
            folder: the run's own for this measurement, on the driver's host.
            twice: once more where it was the host's fault.
        """
        there = self._place.folder
        where = Path(folder) if there is None else there / "trial"
        measure = run_twice if twice else run_trial
        try:
            return await measure(
                *(task, self._site, self._setup.goal, self._fleet, where, progress, None),
                self._setup.loads,
            )
        finally:
            if there is not None:
                await self._setup.inbox.deliver.remote(folder, files_of(where))
                shutil.rmtree(where, ignore_errors=True)

    def close(self) -> None:
        """End the load processes."""
        self._fleet.close()


class ServingTrial(tune.Trainable):
    """Tune's view of a trial.

    The trial runs in a thread with an event loop of its own; each `step` returns its next
    phase, or a sign of life, so that Tune can show it and stop it.
    """

    def setup(self, config: dict[str, Any], setup: TrialSetup | None = None) -> None:
        """Make the load processes, which serve one trial after another."""
        assert setup is not None
        self._bench = Bench(setup)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._task: Any = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next configuration without a new process."""
        self._stop()
        return True

    def step(self) -> dict[str, Any]:
        """The trial's next phase; with its last step, its result."""
        if self._task is None:
            self._phase = Phase("start")
            self._phases: queue.Queue[Phase | Seen | None] = queue.Queue()
            coroutine = self._bench.run(
                Task.from_dict(self.config), self.config["folder"], self._phases.put
            )
            self._task = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            self._task.add_done_callback(lambda _: self._phases.put(None))
        seen: dict[str, str] = {}
        with contextlib.suppress(queue.Empty):
            phase = self._phases.get(timeout=HEARTBEAT_S)
            if phase is None:
                result = self._task.result()
                rate = result.sustained_rps or 0.0
                return {"sustained_rps": rate, "record": json.dumps(result.to_dict()), "done": True}
            if isinstance(phase, Seen):
                seen = {"window": json.dumps(vars(phase))}
            else:
                self._phase = phase
        told = {"phase": self._phase.name, "rate_rps": self._phase.rate_rps, **seen}
        return {"sustained_rps": 0.0, **told}

    def cleanup(self) -> None:
        """Stop the server, the load processes and the thread."""
        self._stop()
        self._bench.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            ended = asyncio.run_coroutine_threadsafe(_others_done(), self._loop)
            with contextlib.suppress(TimeoutError):
                ended.result(timeout=30)
            self._task = None

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the study is what a run is resumed from."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: the study is what a run is resumed from."""


async def _others_done() -> None:
    """Wait for every other task of this loop: a cancelled trial still stops its server."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others)


class _BenchActor(Bench):
    """A bench that is spoken to from the driver."""

    def __init__(self, setup: TrialSetup):
        super().__init__(setup)
        self._news: list[Phase | Seen] = []

    async def measure(self, task: Task, folder: str) -> TrialResult:
        """See `Bench.run`."""
        return await self.run(task, folder, self._news.append, twice=True)

    async def news(self) -> list[Phase | Seen]:
        """What has happened since this was last asked."""
        news, self._news = self._news, []
        return news


class RemoteBench:
    """The one host on which a confirmation measures, as an asynchronous context.

    Raises:
        ClusterError: no host is left, or the one that was taken leaves.
    """

    def __init__(self, setup: TrialSetup):
        self._setup = setup
        self._actor: Any = None

    async def __aenter__(self) -> RemoteBench:
        served = [node for node in nodes() if node.id in self._setup.places.by_node]
        if not served:
            raise ClusterError("no host that served is left to confirm on")
        self._host: Node = served[0]
        self._group = placement_group(**self._setup.request([self._host.id]))
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
        self, task: Task, folder: Path, told: Callable[[Phase | Seen], None]
    ) -> TrialResult:
        """Measure a configuration there; a process that is lost is its result's cause."""
        if self._actor is None:
            if self._host not in nodes():
                raise self._gone("left while it confirmed")
            first = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=0)
            options = {"num_cpus": 1, "scheduling_strategy": first}
            self._actor = ray.remote(_BenchActor).options(**options).remote(self._setup)
        work = self._actor.measure.remote(task, str(folder))
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
            cause = "trial process lost: it ended before it could report"
            return TrialResult(
                task.number, task.kind, task.config, State.FAILED, cause=cause, host_fault=True
            )
        except asyncio.CancelledError:
            ray.cancel(work)
            with contextlib.suppress(RayError, TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(work.future()), _STOP_S)
            raise
