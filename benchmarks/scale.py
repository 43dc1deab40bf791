"""Measure the overhead of a run by hosts and by trials: `python -m benchmarks.scale`.

The trials are simulated: each one waits, and reports a rate that depends on its configuration. Ray,
Tune, the study, its sampler and its files are real. The hosts are nodes of a Ray cluster on this
machine.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from itertools import pairwise
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

from benchmarks.record import write_study
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
TABLE_TRIALS = (10, 100, 1000)


class SimulatedTrial(tune.Trainable):
    """A trial that waits for `seconds`."""

    def setup(self, config: dict[str, Any], seconds: float = 0.0) -> None:
        """Keep the duration."""
        self._seconds = seconds

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Let Tune reuse the actor for the next trial."""
        return True

    def step(self) -> dict[str, Any]:
        """Wait, and return the result."""
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


class _RecordingObserver(EventObserver):
    """Records the time and the driver's memory at the end of each trial."""

    def __init__(self, log: EventLog):
        super().__init__(log.record)
        self.end_times_s: list[float] = []
        self.memory_mb: list[float] = []

    def finished(self, result: TrialResult, best: TrialResult | None) -> None:
        """See `StudyObserver.finished`."""
        super().finished(result, best)
        self.end_times_s.append(time.monotonic())
        self.memory_mb.append(psutil.Process().memory_info().rss / (1 << 20))


def _create_run(folder: Path, trials: int) -> Run:
    folder.mkdir()
    space = {"workers": {"low": 1, "high": 16}, "batch_size": {"low": 1, "high": 512}}
    search = {"trials": trials, "min_improvement_probability": 0}
    return create_run(
        load_spec(write_study("fixed", folder, name="scale", space=space, search=search))
    )


def run_trials(folder: Path, hosts: int, trials: int, seconds: float) -> _RecordingObserver:
    """Run simulated trials on a cluster with this number of hosts."""
    run = _create_run(folder, trials)
    cluster = Cluster()
    for _ in range(hosts):
        # One CPU per node: a trial only waits.
        cluster.add_node(num_cpus=1, resources={SERVING_RESOURCE: 1}, object_store_memory=80 << 20)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    observer = _RecordingObserver(EventLog(folder / "events.jsonl"))
    try:
        store = open_store(run, run.spec())
        store.begin()
        trainable = tune.with_resources(
            tune.with_parameters(SimulatedTrial, seconds=seconds),
            tune.PlacementGroupFactory([{"CPU": 1.0, SERVING_RESOURCE: 1.0}]),
        )
        tune_trials(run, store, Budget(run.spec(), store), observer, trainable, hosts)
    finally:
        ray.shutdown()
        cluster.shutdown()
    return observer


def _hosts_table(folder: Path, seconds: float, trials_per_host: int) -> Table:
    title = f"Hosts, {trials_per_host} trials of {seconds:g} s on each"
    table = Table(title=title, box=None)
    for name in ("hosts", "trials per hour", "efficiency"):
        table.add_column(name, justify="right")
    single_host_rate = 0.0
    for hosts in HOSTS:
        observer = run_trials(folder / f"hosts-{hosts}", hosts, trials_per_host * hosts, seconds)
        end_times_s = observer.end_times_s
        # Leave out the first trial of each host: it includes the start of the processes.
        start_s = end_times_s[hosts - 1]
        rate = 3600 * (len(end_times_s) - hosts) / (end_times_s[-1] - start_s)
        single_host_rate = single_host_rate or rate
        table.add_row(str(hosts), f"{rate:.0f}", f"{rate / single_host_rate / hosts:.2f}")
    return table


def _trials_table(folder: Path, seconds: float) -> Table:
    observer = run_trials(folder / "trials", 1, max(TABLE_TRIALS), seconds)
    overheads_s = [after - before - seconds for before, after in pairwise(observer.end_times_s)]
    table = Table(title="One study: overhead of a trial", box=None)
    for name in ("trial", "seconds, median of the last 10", "driver's memory, MiB"):
        table.add_column(name, justify="right")
    for number in TABLE_TRIALS:
        last_10 = overheads_s[max(number - 11, 0) : number - 1]
        memory_mb = observer.memory_mb[number - 1]
        table.add_row(str(number), f"{median(last_10):.2f}", f"{memory_mb:.0f}")
    return table


def main(
    seconds: Annotated[float, typer.Option(help="Duration of a trial on several hosts.")] = 5.0,
    trials_per_host: Annotated[int, typer.Option("--each", help="Trials on each host.")] = 12,
) -> None:
    """Print trials per hour by hosts, and the overhead of a trial by trials before it."""
    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}
    console = Console()
    with tempfile.TemporaryDirectory(prefix="servetune-scale-") as folder:
        console.print(_hosts_table(Path(folder), seconds, trials_per_host))
        console.print(_trials_table(Path(folder), 0.05))


if __name__ == "__main__":
    typer.run(main)
