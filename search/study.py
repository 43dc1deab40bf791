"""A whole run: its cluster, its trials, its confirmation, its budget, its end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from types import FrameType
from typing import Any, Protocol

import ray
from ray import tune
from ray.tune.logger import JsonLoggerCallback, TBXLoggerCallback

from search.bench import RemoteBench, ServingTrial, TrialSetup
from search.cluster import Survey, alone, ray_cluster
from search.confirm import Confirmation, Plan, confirm
from search.errors import RecordError, RunError
from search.host import describe_host, describe_versions, only_one
from search.optimizer import STORAGE_ERRORS, DriverOnly, Study, StudySearcher, finalists
from search.result import Kind, Seen, State, Task, TrialResult
from search.run import Run, changes
from search.spec import StudySpec
from search.text import first_line
from search.trial import Phase
from serving.config import ServerConfig

INTERRUPTED = "it was interrupted"
_NO_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class Watcher(Protocol):
    """Whoever looks on: all calls come from the thread that runs the study."""

    def started(self, task: Task) -> None:
        """A trial was handed out."""

    def phase(self, number: int, name: str, rate_rps: float) -> None:
        """A trial is in this phase now."""

    def window(self, number: int, seen: Seen) -> None:
        """A window of a trial has ended."""

    def finished(self, result: TrialResult, best: TrialResult | None) -> None:
        """A trial was recorded."""

    def confirming(self, number: int, task: Task) -> None:
        """A trial's configuration is measured again, in this round of the confirmation."""

    def confirmed(self, number: int, result: TrialResult) -> None:
        """That measurement was recorded."""

    def stopping(self) -> None:
        """The run was interrupted, and ends what is under way."""


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
    confirmation: Confirmation | None = None
    notes: tuple[str, ...] = ()
    failed: bool = False
    interrupted: bool = False

    @property
    def chosen(self) -> TrialResult | None:
        """The trial to take: the confirmation's winner, or the best of the search."""
        if self.confirmation is None:
            return self.best
        task = self.confirmation.plan.tasks[self.confirmation.winner]
        return next(r for r in self.results if r.number == task.number)


def new_run(spec: StudySpec) -> Run:
    """Make a run's folder, with the specification, the hosts and the versions in it.

    Raises:
        RunError: no folder can be made, or the cluster cannot place a trial.
    """
    recorded: dict[str, Any] = {
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": describe_host(),
        "versions": describe_versions(spec.installation()),
        "placement": {"load": "on the server's host"},
    }
    if spec.cluster.address is not None:
        with ray_cluster(spec.cluster.address), _survey(spec) as survey:
            survey.check(spec.load.most_processes)
            recorded |= survey.recorded()
    return Run.create(spec, recorded)


def _survey(spec: StudySpec) -> Survey:
    return Survey(spec.serving.python, spec.serving.java)


def open_study(run: Run, spec: StudySpec) -> Study:
    """The study of a run, with what it has already measured."""
    return Study(
        spec.build_space(run.recorded()["host"]["cores"]),
        run.storage(spec.output.storage),
        run.name,
        spec.search.seed,
        spec.baseline(),
        spec.search.incumbent_every,
        spec.points() if spec.sweep else None,
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
    return differences(Run.open(spec.search.warm_start), run)


def differences(earlier: Run, run: Run) -> list[str]:
    """What is not the same of two runs, that their figures may differ by."""
    before = {**earlier.recorded(), **earlier.specified()}
    now = {**run.recorded(), **run.specified()}
    return [
        f"{path}: {how}"
        for part in ("host", "versions", "placement", "model", "serving", "goal", "load", "sweep")
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
    plan = plan_of(run.spec(), results)
    return Outcome(
        run,
        results,
        study.best,
        reference_of(results),
        study.importance(),
        study.ended,
        Confirmation.read(study, plan) if plan else None,
        study.notes,
        **how,
    )


def plan_of(spec: StudySpec, results: list[TrialResult]) -> Plan | None:
    """What is to be confirmed, if anything."""
    reference = reference_of(results)
    if spec.confirm is None or reference is None or not finalists(results, 1):
        return None
    return Plan.of(results, reference, spec.confirm.finalists)


def execute(run: Run, watcher: Watcher, ray_output: bool = False) -> Outcome:
    """Run a study until its budget is spent, or go on with it.

    Args:
        run: its folder.
        watcher: is told what happens.
        ray_output: let Ray and Tune print what they print.

    Raises:
        ServerError: no TorchServe or no Java here.
        RunError: the folder is no run's, its specification was changed, another run is on
            a host, or the cluster cannot place a trial.
        RecordError: what is measured cannot be written down.
    """
    spec = run.spec()
    address, processes = spec.cluster.address, spec.load.most_processes
    site, payloads = spec.site(spec.installation()), tuple(spec.payloads())
    # On a cluster its serving hosts are held, not this one.
    with contextlib.ExitStack() as stack:
        stack.enter_context(run.locked())
        if address is None:
            stack.enter_context(only_one())
        stack.enter_context(_recorded(run))
        study = open_study(run, spec)
        _keep_to_specification(run, study)
        if not study.results:
            study.restore(run.results())
        study.begin([] if study.results else _warm_points(spec))
        run.rebuild(study.results)
        budget = Budget(spec, study)
        searches = budget.may_start()
        if not searches and not budget.unconfirmed():
            study.end(budget.reason)
            return outcome(run, study, failed=budget.failed)
        with contextlib.ExitStack() as started:
            started.enter_context(ray_cluster(address, processes, ray_output))
            # The handlers after the cluster: ray.init sets its own for SIGTERM.
            started.enter_context(_interruptible(budget))
            places, inbox = alone(site.archive), None
            if address is not None:
                survey = started.enter_context(_survey(spec))
                survey.check(processes)
                keep_unlike = spec.cluster.unlike_hosts == "keep"
                places, inbox = survey.place(site.archive, run.folder, keep_unlike)
                study.note(places.doubts)
            setup = TrialSetup(
                *(site, spec.serving.python, spec.serving.java, spec.goal_of_search()),
                *(ray.put(payloads), spec.load.processes, processes, tuple(spec.load.cores)),
                *(spec.sweep.offered() if spec.sweep else (), places, inbox),
            )
            if searches:
                trainable = tune.with_resources(
                    tune.with_parameters(ServingTrial, setup=setup),
                    tune.PlacementGroupFactory(setup.bundles()),
                )
                verbose = 2 if ray_output else 0
                at_once = len(places.by_node)
                tune_trials(run, study, budget, watcher, trainable, at_once, verbose)
            if plan := budget.unconfirmed():
                asyncio.run(_confirm(run, study, plan, setup, budget, watcher))
        study.end(INTERRUPTED if budget.interrupted.is_set() else budget.reason)
    return outcome(run, study, failed=budget.failed, interrupted=budget.interrupted.is_set())


#: What may change between a run and its resumption: when it ends.
MAY_CHANGE = {f"search.{name}" for name in ("trials", "time_budget_s", "patience", "target_rps")}
MAY_CHANGE |= {"confirm", "confirm.rounds", "confirm.finalists"}
MAY_CHANGE |= {"cluster.address", "cluster.unlike_hosts"}


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


#: A confirmation's measurement starts from what is known: its share of a trial's time.
AGAIN = 0.8
#: The confirmation takes no more than this share of the whole time.
RESERVED = 0.6


class Budget:
    """Whether another trial, or a round of the confirmation, may start, and why not.

    Args:
        study: with what is measured already; its time counts.
    """

    def __init__(self, spec: StudySpec, study: Study):
        self._spec = spec
        self._search, self._width = spec.search, spec.goal.width
        # A sweep ends when all its points are measured, whatever a search would do.
        self._trials = len(spec.points()) if spec.sweep else spec.search.trials
        spent_s = study.searched_s + study.confirmed_s
        left_s = (spec.search.time_budget_s or float("inf")) - spent_s
        self._deadline = time.monotonic() + left_s
        self._study = study
        self.interrupted = threading.Event()
        self.failed = False
        self.reason = "no configuration was found that had not been tried"

    @property
    def left_s(self) -> float:
        return self._deadline - time.monotonic()

    def unconfirmed(self) -> Plan | None:
        """The plan of the confirmation, where more of it is to be done and there is time."""
        plan = plan_of(self._spec, self._study.results)
        if plan is None or self.failed:
            return None
        missing = [n for n, left in enumerate(self._missing(plan)) if left]
        return plan if missing and self.has_time_for_round(plan, missing[0]) else None

    def _missing(self, plan: Plan) -> list[int]:
        """By round: how many measurements it lacks."""
        rounds = self._spec.confirm.rounds if self._spec.confirm else 0
        done = [self._study.confirmed(plan.name, number) for number in range(rounds)]
        return [len(plan.tasks) - len(row) for row in done]

    def has_time_for_round(self, plan: Plan, number: int) -> bool:
        """Whether a round of the confirmation may begin, or go on."""
        before = [self._study.confirmed(plan.name, n).values() for n in range(number)]
        seconds = [sum(result.duration_s for result in row) for row in before]
        again_s = self._again_s(self._study.results)
        # The budget is kept within the length of one measurement.
        needed_s = max(seconds, default=len(plan.tasks) * again_s) - again_s
        return not self.interrupted.is_set() and self.left_s >= needed_s

    @staticmethod
    def _again_s(results: list[TrialResult]) -> float:
        """What measuring a configuration again may take."""
        whole = [r.duration_s for r in results if r.state is State.COMPLETE]
        return AGAIN * mean(whole) if whole else 0.0

    def _reserved_s(self, results: list[TrialResult]) -> float:
        """What of the time is still to be the confirmation's."""
        plan = plan_of(self._spec, results)
        if plan is None or self._search.time_budget_s is None:
            return 0.0
        wanted_s = sum(self._missing(plan)) * self._again_s(results)
        most_s = RESERVED * self._search.time_budget_s - self._study.confirmed_s
        return max(min(wanted_s, most_s), 0.0)

    def may_start(self, beside: int = 0) -> bool:
        """Whether another trial may start beside so many that run."""
        results = self._study.results
        if self.interrupted.is_set():
            self.reason = INTERRUPTED
        elif hopeless := self._hopeless(results):
            self.failed = True
            self.reason = f"the {hopeless.kind} configuration cannot serve: {hopeless.cause}"
        elif reached := self._reached(results):
            self.reason = reached
        elif beside + self._counted(results) >= self._trials:
            self.reason = f"all {self._trials} trials were run"
        elif self.left_s - self._reserved_s(results) < self._typical_trial_s(results):
            self.reason = "the time budget was spent"
        else:
            return True
        return False

    def _counted(self, results: list[TrialResult]) -> int:
        return len([r for r in results if not (self._spec.sweep and r.host_fault)])

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


async def _confirm(
    run: Run, study: Study, plan: Plan, setup: TrialSetup, budget: Budget, watcher: Watcher
) -> None:
    """Carry out a plan, as far as time allows, on one host."""
    spec = run.spec()
    assert spec.confirm is not None

    async def measure(number: int, task: Task, where: Path) -> TrialResult:
        def tell(told: Phase | Seen) -> None:
            if isinstance(told, Seen):
                watcher.window(task.number, told)
            else:
                watcher.phase(task.number, told.name, told.rate_rps)

        watcher.confirming(number, task)
        result = await bench.measure(task, run.folder / where, tell)
        watcher.confirmed(number, result)
        return result

    def may_start(number: int) -> bool:
        return budget.has_time_for_round(plan, number)

    async with RemoteBench(setup) as bench:
        work = asyncio.ensure_future(confirm(study, plan, spec.confirm.rounds, may_start, measure))
        while not work.done():
            if budget.interrupted.is_set():
                watcher.stopping()
                work.cancel()
            await asyncio.wait({work}, timeout=0.5)
        if not work.cancelled():
            work.result()


class _StopOnInterrupt(DriverOnly, tune.Stopper):
    def __init__(self, budget: Budget, watcher: Watcher):
        self._budget, self._watcher = budget, watcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if is_over := self._budget.interrupted.is_set():
            self._watcher.stopping()
        return is_over


class _TuneCallback(DriverOnly, tune.Callback):
    def __init__(self, watcher: Watcher):
        self._watcher = watcher

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        number = trial.config["number"]
        if "window" in result:
            self._watcher.window(number, Seen(**json.loads(result["window"])))
        if "phase" in result:
            self._watcher.phase(number, result["phase"], result["rate_rps"])


def tune_trials(
    run: Run,
    study: Study,
    budget: Budget,
    watcher: Watcher,
    trainable: Any,
    at_once: int,
    verbose: int = 0,
) -> None:
    """Let Tune run trials for as long as the budget allows.

    Args:
        trainable: Tune's, with what it needs of the cluster; `ServingTrial` but in benchmarks.
        at_once: how many run at the same time.
        verbose: Tune's own.
    """

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
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1,
            reuse_actors=True,
            max_concurrent_trials=at_once,
            trial_name_creator=lambda trial: f"trial-{trial.config['number']}",
            trial_dirname_creator=lambda trial: f"trial-{trial.config['number']}",
        ),
        run_config=tune.RunConfig(
            name=f"tune-{time.strftime('%H%M%S')}" if (run.folder / "tune").exists() else "tune",
            storage_path=str(run.folder),
            stop=_StopOnInterrupt(budget, watcher),
            callbacks=[JsonLoggerCallback(), TBXLoggerCallback(), _TuneCallback(watcher)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=verbose,
        ),
    )
    tuner.fit()


@contextlib.contextmanager
def _recorded(run: Run) -> Iterator[None]:
    """Say in a sentence that a disk is full, or the study's storage gone."""
    try:
        yield
    except (OSError, *STORAGE_ERRORS) as error:
        if isinstance(error, OSError) and error.errno not in _NO_WRITING:
            raise
        cause = error.__cause__ or error
        raise RecordError(
            f"{run.folder} or its study cannot be written: {first_line(str(cause))}; what was "
            f"recorded before is kept, and servetune resume {run.folder} goes on once it can be"
        ) from error


@contextlib.contextmanager
def _interruptible(budget: Budget) -> Iterator[None]:
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
