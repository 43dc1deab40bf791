"""A whole run: its cluster, its trials, its budget, its end."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import psutil
import ray
from ray import tune
from ray.tune.logger import JsonLoggerCallback, TBXLoggerCallback

from loadgen.ray_process import LOADGEN_RESOURCE
from search.errors import RunError
from search.host import describe_host, describe_versions, only_one
from search.optimizer import DriverOnly, Study, StudySearcher, finalists
from search.result import Kind, State, Task, TrialResult
from search.run import Run, changes
from search.spec import StudySpec
from search.trial import ServingTrial, TrialSetup
from serving.config import ServerConfig
from serving.server import sweep

SERVING_RESOURCE = "serving_host"
OBJECT_STORE_BYTES = 80 << 20
CLEANUP_S = 30
INTERRUPTED = "it was interrupted"
_RAY_PREFIX = "servetune.ray-"


class Watcher(Protocol):
    """Whoever looks on: all calls come from the thread that runs the study."""

    def started(self, task: Task) -> None:
        """A trial was handed out."""

    def phase(self, number: int, name: str, rate_rps: float) -> None:
        """A trial is in this phase now."""

    def finished(self, result: TrialResult, best: TrialResult | None) -> None:
        """A trial was recorded."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    reason is None while it has not ended. failed says that there is nothing to go on with:
    the baseline cannot serve at all.
    """

    run: Run
    results: list[TrialResult]
    best: TrialResult | None
    reference: TrialResult | None
    importance: Mapping[str, float]
    reason: str | None
    failed: bool = False
    interrupted: bool = False


def new_run(spec: StudySpec) -> Run:
    """Make a run's folder, with the specification, the host and the versions in it."""
    recorded = {
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": describe_host(),
        "versions": describe_versions(spec.installation()),
    }
    return Run.create(spec, recorded)


def open_study(run: Run, spec: StudySpec) -> Study:
    """The study of a run, with what it has already measured."""
    return Study(
        spec.build_space(run.recorded()["host"]["cores"]),
        run.storage(spec.output.storage),
        run.name,
        spec.search.seed,
        spec.baseline(),
        spec.search.incumbent_every,
    )


#: Of an earlier run's best configurations so many are tried first.
WARM_POINTS = 3


def _warm_points(spec: StudySpec) -> list[ServerConfig]:
    if spec.search.warm_start is None:
        return []
    return finalists(Run.open(spec.search.warm_start).results(), WARM_POINTS)


def warm_start_doubts(run: Run, spec: StudySpec) -> list[str]:
    """What is not as it was in the run that a warm start takes its first points from."""
    if spec.search.warm_start is None or not (spec.search.warm_start / "spec.yaml").is_file():
        return []  # It is read once; a run that goes on no longer needs it.
    earlier = Run.open(spec.search.warm_start)
    before = {**earlier.recorded(), **earlier.specified()}
    now = {**run.recorded(), **run.specified()}
    return [
        f"{path}: {how}"
        for part in ("host", "versions", "model", "goal", "load")
        for path, how in changes({part: before.get(part)}, {part: now.get(part)}).items()
    ]


def reference_of(results: list[TrialResult]) -> TrialResult | None:
    """What everything is compared with: the configuration in use, else TorchServe's default."""
    for kind in (Kind.BASELINE, Kind.DEFAULT):
        found = [r for r in results if r.kind is kind and not r.host_fault]
        if found:
            return found[-1]
    return None


def outcome(run: Run, study: Study, **how: Any) -> Outcome:
    """What is known of a run."""
    results = study.results
    return Outcome(
        run,
        results,
        study.best,
        reference_of(results),
        study.importance(),
        study.ended,
        **how,
    )


def execute(run: Run, watcher: Watcher, ray_output: bool = False) -> Outcome:
    """Run a study until its budget is spent, or go on with it.

    Args:
        run: its folder.
        watcher: is told what happens.
        ray_output: let Ray and Tune print what they print.

    Raises:
        ServerError: no TorchServe or no Java here.
        RunError: the folder is no run's, its specification was changed, or another run is on
            this host.
    """
    spec = run.spec()
    setup = TrialSetup(
        spec.site(spec.installation()),
        spec.goal_of_search(),
        tuple(spec.payloads()),
        spec.load.processes,
        tuple(spec.load.cores),
        tuple(range(1, spec.load.most_processes + 1)),
    )
    with run.locked(), only_one():
        study = open_study(run, spec)
        _keep_to_specification(run, study)
        study.begin([] if study.results else _warm_points(spec))
        run.rebuild(study.results)
        budget = _Budget(spec, study)
        if not budget.may_start():
            study.end(budget.reason)
            return outcome(run, study, failed=budget.failed)
        # The handlers after the cluster: ray.init sets its own for SIGTERM.
        with local_cluster(spec.load.most_processes, ray_output), _interruptible(budget):
            _tune(run, study, setup, budget, watcher, verbose=2 if ray_output else 0)
        study.end(INTERRUPTED if budget.interrupted.is_set() else budget.reason)
    return outcome(run, study, failed=budget.failed, interrupted=budget.interrupted.is_set())


#: What may change between a run and its resumption: when it ends.
MAY_CHANGE = {f"search.{name}" for name in ("trials", "time_budget_s", "patience", "target_rps")}


def _keep_to_specification(run: Run, study: Study) -> None:
    now = run.specified()
    if (before := study.specified) is not None:
        changed = changes(before, now)
        if wrong := [f"{path} {how}" for path, how in changed.items() if path not in MAY_CHANGE]:
            raise RunError(
                f"{run.folder / 'spec.yaml'} was changed since the run began: {'; '.join(wrong)}; "
                f"put it back, or start a new run (only {', '.join(sorted(MAY_CHANGE))} may change)"
            )
    study.specify(now)


class _Budget:
    """Whether another trial may start, and why not."""

    def __init__(self, spec: StudySpec, study: Study):
        self._search, self._width = spec.search, spec.goal.width
        spent_s = sum(result.duration_s for result in study.results)
        left_s = (spec.search.time_budget_s or float("inf")) - spent_s
        self._deadline = time.monotonic() + left_s
        self._study = study
        self.interrupted = threading.Event()
        self.failed = False
        self.reason = "no configuration was found that had not been tried"

    @property
    def left_s(self) -> float:
        return self._deadline - time.monotonic()

    def may_start(self) -> bool:
        results = self._study.results
        if self.interrupted.is_set():
            self.reason = INTERRUPTED
        elif hopeless := self._hopeless(results):
            self.failed = True
            self.reason = f"the {hopeless.kind} configuration cannot serve: {hopeless.cause}"
        elif reached := self._reached(results):
            self.reason = reached
        elif len(results) >= self._search.trials:
            self.reason = f"all {self._search.trials} trials were run"
        elif self.left_s < self._typical_trial_s(results):
            self.reason = "the time budget was spent"
        else:
            return True
        return False

    def _reached(self, results: list[TrialResult]) -> str | None:
        """The target that was reached, or the patience that is over."""
        best = self._study.incumbent_rps or 0.0
        target, patience = self._search.target_rps, self._search.patience
        if target is not None and best >= target:
            return f"the target of {target:g} rps was reached: {best:.1f} rps"
        if patience is not None and trials_since_improvement(results, self._width) >= patience:
            return f"no configuration was better, beyond the noise, in {patience} trials"
        return None

    @staticmethod
    def _hopeless(results: list[TrialResult]) -> TrialResult | None:
        """What everything would be compared with, where it did not serve at all, tried again."""
        for kind in (Kind.DEFAULT, Kind.BASELINE):
            tried = [r for r in results if r.kind is kind]
            dead = [r for r in tried if r.state is State.FAILED and not r.capacity_rps]
            if tried and len(dead) == len(tried) and (len(dead) > 1 or not dead[0].host_fault):
                return dead[-1]
        return None

    @staticmethod
    def _typical_trial_s(results: list[TrialResult]) -> float:
        """What the next trial may take: the budget is to be kept, not overrun by one."""
        durations = sorted(r.duration_s for r in results)
        return durations[int(0.8 * len(durations))] if durations else 0.0


def trials_since_improvement(results: list[TrialResult], width: float) -> int:
    """Trials since one was better than all before it by more than the width of a rate's bounds.

    What is measured again, and what everything is compared with, is no attempt at it.
    """
    since, record = 0, 0.0
    for result in results:
        if result.kind is Kind.INCUMBENT or result.host_fault:
            continue
        if (result.sustained_rps or 0.0) > (1 + width) * record:
            since, record = 0, result.sustained_rps or 0.0
        elif result.kind in (Kind.WARM, Kind.GUIDE, Kind.SAMPLED):
            since += 1
    return since


class _StopOnInterrupt(DriverOnly, tune.Stopper):
    def __init__(self, budget: _Budget):
        self._budget = budget

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._budget.interrupted.is_set()


class _TuneCallback(DriverOnly, tune.Callback):
    def __init__(self, watcher: Watcher):
        self._watcher = watcher

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "phase" in result:
            number = trial.config["number"]
            self._watcher.phase(number, result["phase"], result["rate_rps"])


def _tune(
    run: Run, study: Study, setup: TrialSetup, budget: _Budget, watcher: Watcher, verbose: int
) -> None:
    def finished(result: TrialResult) -> None:
        run.append(result)
        watcher.finished(result, study.best)

    searcher = StudySearcher(
        study,
        budget.may_start,
        watcher.started,
        finished,
        lambda number: str(run.trial_folder(number)),
    )
    bundles = [{"CPU": 1.0, SERVING_RESOURCE: 1.0}]
    bundles += [{LOADGEN_RESOURCE: 1.0}] * len(setup.bundles)
    trainable = tune.with_resources(
        tune.with_parameters(ServingTrial, setup=setup), tune.PlacementGroupFactory(bundles)
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1,
            reuse_actors=True,
            max_concurrent_trials=1,
            trial_name_creator=lambda trial: f"trial-{trial.config['number']}",
            trial_dirname_creator=lambda trial: f"trial-{trial.config['number']}",
        ),
        run_config=tune.RunConfig(
            name=f"tune-{time.strftime('%H%M%S')}" if (run.folder / "tune").exists() else "tune",
            storage_path=str(run.folder),
            stop=_StopOnInterrupt(budget),
            callbacks=[JsonLoggerCallback(), TBXLoggerCallback(), _TuneCallback(watcher)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=verbose,
        ),
    )
    tuner.fit()


@contextlib.contextmanager
def _interruptible(budget: _Budget) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the run in order; a second one ends it at once."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def interrupt(number: int, frame: FrameType | None) -> None:
        budget.interrupted.set()
        for known, handler in before.items():
            signal.signal(known, handler)

    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def local_cluster(processes: int, ray_output: bool = False) -> Iterator[Path]:
    """A Ray cluster on this host alone; yields its folder, which is gone when this ends."""
    sweep()
    _sweep_clusters()
    os.environ |= {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_FORCE_TRIAL_CLEANUP_S": str(CLEANUP_S),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Tune's newer output prints a box even where it is told to be silent.
        "RAY_AIR_NEW_OUTPUT": "0",
    }
    folder = Path(tempfile.mkdtemp(prefix=_RAY_PREFIX, dir="/tmp"))
    me = psutil.Process()
    (folder / "driver.pid").write_text(f"{me.pid} {me.create_time()}")
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            num_cpus=2,
            resources={SERVING_RESOURCE: 1, LOADGEN_RESOURCE: processes},
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=ray_output,
            logging_level=logging.INFO if ray_output else logging.ERROR,
            _temp_dir=str(folder),
        )
        yield folder
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _sweep_clusters() -> None:
    """Remove the folders of clusters whose driver was killed."""
    for folder in Path("/tmp").glob(f"{_RAY_PREFIX}*"):
        with contextlib.suppress(OSError, ValueError):
            pid, created = (folder / "driver.pid").read_text().split()
            try:
                alive = psutil.Process(int(pid)).create_time() == float(created)
            except psutil.Error:
                alive = False
            if not alive:
                shutil.rmtree(folder, ignore_errors=True)
