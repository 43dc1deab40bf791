"""How a run's cost grows with hosts and with trials: `python -m benchmarks.scale`.

Trials are scripted: they wait, and report a rate that the configuration gives. Ray, Tune, the
study, its sampler and its files are real; the hosts are nodes of one Ray cluster on this machine.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import psutil
import ray
import typer
from ray import tune
from ray.cluster_utils import Cluster
from rich.console import Console
from rich.table import Table

from benchmarks.record import study_of
from search.cluster.placement import SERVING_RESOURCE
from search.service.events import EventLog
from search.spec.loading import load_spec
from search.study.budget import Budget
from search.study.driver import create_run
from search.study.observer import EventObserver
from search.study.reading import open_store
from search.study.run_folder import Run
from search.study.tune_adapter import tune_trials
from search.trial.request import TrialRequest
from search.trial.result import HostRecord, RateRecord, TimingRecord, TrialResult, TrialState

HOSTS = (1, 2, 4)
AT = (10, 100, 1000)


class Scripted(tune.Trainable):
    """A trial that takes `seconds`."""

    def setup(self, config: dict[str, Any], seconds: float = 0.0) -> None:
        """Remember how long."""
        self._seconds = seconds

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next one."""
        return True

    def step(self) -> dict[str, Any]:
        """All of it."""
        time.sleep(self._seconds)
        request = TrialRequest.from_dict(self.config)
        rate = 10.0 * (request.config.workers or 1) * (request.config.batch_size or 1) ** 0.5
        result = TrialResult(
            number=request.number,
            origin=request.origin,
            config=request.config,
            state=TrialState.COMPLETE,
            rate=RateRecord(sustained_rps=rate),
            host=HostRecord({"host": ray.get_runtime_context().get_node_id()}),
            timing=TimingRecord(duration_s=self._seconds),
        )
        record = json.dumps(result.to_dict())
        return {"sustained_rps": rate, "record": record, "done": True}


class _Clock(EventObserver):
    """Notes when each trial ended, and how much memory the driver then held."""

    def __init__(self, log: EventLog):
        super().__init__(log.record)
        self.ended_s: list[float] = []
        self.memory_mb: list[float] = []

    def finished(self, result: TrialResult, best: TrialResult | None) -> None:
        """A trial was recorded."""
        super().finished(result, best)
        self.ended_s.append(time.monotonic())
        self.memory_mb.append(psutil.Process().memory_info().rss / (1 << 20))


def _new_run(folder: Path, trials: int) -> Run:
    folder.mkdir()
    space = {"workers": {"low": 1, "high": 16}, "batch_size": {"low": 1, "high": 512}}
    search = {"trials": trials}
    return create_run(
        load_spec(study_of("fixed", folder, name="scale", space=space, search=search))
    )


def measure(folder: Path, hosts: int, trials: int, seconds: float) -> _Clock:
    """Run scripted trials on `hosts` hosts."""
    run = _new_run(folder, trials)
    cluster = Cluster()
    for _ in range(hosts):
        # One process of Ray's each: what a trial does is wait.
        cluster.add_node(num_cpus=1, resources={SERVING_RESOURCE: 1}, object_store_memory=80 << 20)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    clock = _Clock(EventLog(folder / "events.jsonl"))
    try:
        study = open_store(run, run.spec())
        study.begin()
        trainable = tune.with_resources(
            tune.with_parameters(Scripted, seconds=seconds),
            tune.PlacementGroupFactory([{"CPU": 1.0, SERVING_RESOURCE: 1.0}]),
        )
        tune_trials(run, study, Budget(run.spec(), study), clock, trainable, hosts)
    finally:
        ray.shutdown()
        cluster.shutdown()
    return clock


def _hosts(folder: Path, seconds: float, each: int) -> Table:
    table = Table(title=f"Hosts, trials of {seconds:g} s, {each} on each", box=None)
    for name in ("hosts", "trials per hour", "efficiency"):
        table.add_column(name, justify="right")
    first = 0.0
    for hosts in HOSTS:
        ended = measure(folder / f"hosts-{hosts}", hosts, each * hosts, seconds).ended_s
        # From the first round's end: before it, processes start, which is once a run.
        after = ended[hosts - 1]
        rate = 3600 * (len(ended) - hosts) / (ended[-1] - after)
        first = first or rate
        table.add_row(str(hosts), f"{rate:.0f}", f"{rate / first / hosts:.2f}")
    return table


def _trials(folder: Path, seconds: float) -> Table:
    clock = measure(folder / "trials", 1, max(AT), seconds)
    spent = [b - a - seconds for a, b in zip(clock.ended_s, clock.ended_s[1:], strict=False)]
    table = Table(title="One study: what a trial costs beside itself", box=None)
    for name in ("trial", "seconds, median of the last 10", "driver's memory, MiB"):
        table.add_column(name, justify="right")
    for number in AT:
        around = spent[max(number - 11, 0) : number - 1]  # Of each the gap before its end.
        memory = clock.memory_mb[number - 1]
        table.add_row(str(number), f"{median(around):.2f}", f"{memory:.0f}")
    return table


def main(
    seconds: Annotated[float, typer.Option(help="of a trial, on several hosts")] = 5.0,
    each: Annotated[int, typer.Option(help="trials for each host")] = 12,
) -> None:
    """Print trials per hour by hosts, then the cost of a trial by those before it."""
    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}
    console = Console()
    with tempfile.TemporaryDirectory(prefix="servetune-scale-") as folder:
        console.print(_hosts(Path(folder), seconds, each))
        console.print(_trials(Path(folder), 0.05))


if __name__ == "__main__":
    typer.run(main)
