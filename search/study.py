"""A whole run: its cluster, its trials, its confirmation, its budget, its end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import ray
from ray import tune
from ray.tune.logger import JsonLoggerCallback, TBXLoggerCallback

from loadgen.payloads import Payload
from search.bench import RemoteBench, ServingTrial, TrialSetup
from search.budget import INTERRUPTED, Budget, plan_of
from search.cluster import Survey, Watch, alone, ray_cluster
from search.confirm import Confirmation, Plan, confirm
from search.errors import ClusterError, RecordError, RunError
from search.host import describe_host, describe_versions, only_one
from search.optimizer import STORAGE_ERRORS, DriverOnly, Study, StudySearcher, finalists
from search.result import Seen, Task, TrialResult, reference_of
from search.run import Run, changes
from search.spec import StudySpec
from search.text import first_line
from search.trial import Phase
from serving.config import ServerConfig
from serving.site import Site

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
            recorded |= survey.recorded(spec.load.most_processes)
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
    # Where the space is another one, its points are the nearest to the earlier run's best.
    return differences(Run.open(spec.search.warm_start), run, (*COMPARED, "space"))


#: What the figures of two runs may differ by.
COMPARED = ("host", "versions", "placement", "model", "serving", "goal", "load", "sweep")


def differences(earlier: Run, run: Run, parts: Sequence[str] = COMPARED) -> list[str]:
    """What is not the same of two runs."""
    before = {**earlier.recorded(), **earlier.specified()}
    now = {**run.recorded(), **run.specified()}
    return [
        f"{path}: {how}"
        for part in parts
        for path, how in changes({part: before.get(part)}, {part: now.get(part)}).items()
    ]


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
        ClusterError: the cluster has no room for a trial any more, or Ray failed.
    """
    spec = run.spec()
    address, processes = spec.cluster.address, spec.load.most_processes
    site, payloads = spec.site(spec.installation()), tuple(spec.payloads())
    # On a cluster its serving hosts are held, not this one.
    with contextlib.ExitStack() as stack:
        stack.enter_context(run.locked())
        if address is None:
            stack.enter_context(only_one())
        stack.enter_context(recording(run))
        study = open_study(run, spec)
        if _keep_to_specification(run, study):
            study.close_search(None)
        study.restore(run.results())
        study.begin([] if study.results else _warm_points(spec))
        run.rebuild(study.results)
        budget = Budget(spec, study)
        searches = budget.may_start()
        if not searches and not budget.unconfirmed():
            study.end(budget.reason)
            return outcome(run, study, failed=budget.failed)
        kept = f"what was measured is kept, and servetune resume {run.folder} goes on"
        ended = f"servetune: this run's process was killed, or its Ray was; {kept}"
        try:
            # The handlers after the cluster: ray.init sets its own for SIGTERM.
            with ray_cluster(address, processes, ray_output, ended), _interruptible(budget):
                with _trial_setup(run, spec, study, site, payloads) as setup:
                    _measure(run, study, budget, watcher, setup, searches, ray_output)
        except ClusterError as error:
            raise ClusterError(f"{error}; {kept}") from error
        study.end(INTERRUPTED if budget.interrupted.is_set() else budget.reason)
    return outcome(run, study, failed=budget.failed, interrupted=budget.interrupted.is_set())


def _measure(
    run: Run,
    study: Study,
    budget: Budget,
    watcher: Watcher,
    setup: TrialSetup,
    searches: bool,
    ray_output: bool,
) -> None:
    """Search where that is not over, then confirm what is to be."""
    if searches:
        trainable = tune.with_resources(
            tune.with_parameters(ServingTrial, setup=setup),
            tune.PlacementGroupFactory(**setup.request()),
        )
        at_once = setup.places.at_once(setup.most_processes)
        lost = Watch(setup.places, setup.most_processes).lost
        verbose = 2 if ray_output else 0
        tune_trials(run, study, budget, watcher, trainable, at_once, verbose, lost)
        if not budget.interrupted.is_set():
            study.close_search(budget.reason)
    if plan := budget.unconfirmed():
        asyncio.run(_confirm(run, study, plan, setup, budget, watcher))


@contextlib.contextmanager
def _trial_setup(
    run: Run, spec: StudySpec, study: Study, site: Site, payloads: tuple[Payload, ...]
) -> Iterator[TrialSetup]:
    """What a trial is made of: on this host, or on those of the cluster."""
    load = spec.load
    places, inbox = alone(site.archive, load.most_processes), None
    with contextlib.ExitStack() as stack:
        if spec.cluster.address is not None:
            survey = stack.enter_context(_survey(spec))
            survey.check(load.most_processes)
            keep_unlike = spec.cluster.unlike_hosts == "keep"
            places, inbox = survey.place(site.archive, run.folder, keep_unlike, load.most_processes)
            study.note(places.doubts)
        yield TrialSetup(
            site=site,
            python=spec.serving.python,
            java=spec.serving.java,
            goal=spec.goal_of_search(),
            payloads=ray.put(payloads),
            processes=load.processes,
            most_processes=load.most_processes,
            cores=tuple(load.cores),
            loads=spec.sweep.offered() if spec.sweep else (),
            places=places,
            inbox=inbox,
        )


#: What may change between a run and its resumption: when it ends.
MAY_CHANGE = {f"search.{name}" for name in ("trials", "time_budget_s", "patience", "target_rps")}
MAY_CHANGE |= {"confirm", "confirm.rounds", "confirm.finalists"}
MAY_CHANGE |= {"cluster.address", "cluster.unlike_hosts"}


def _keep_to_specification(run: Run, study: Study) -> bool:
    """Whether something was changed of what may be."""
    now = run.specified()
    if (before := study.specified) is not None:
        changed = changes(before, now)
        if wrong := [f"{path} {how}" for path, how in changed.items() if path not in MAY_CHANGE]:
            raise RunError(
                f"{run.folder / 'spec.yaml'} was changed since the run began: {'; '.join(wrong)}; "
                f"put it back, or start a new run (only {', '.join(sorted(MAY_CHANGE))} may change)"
            )
    study.specify(now)
    return before != now


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
        study.spend(budget.spent_s)
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


class _Stopper(DriverOnly, tune.Stopper):
    """Stops all where the run was interrupted, or nothing can be measured or recorded any more."""

    def __init__(
        self,
        budget: Budget,
        searcher: StudySearcher,
        watcher: Watcher,
        lost: Callable[[], str | None],
    ):
        self._budget, self._searcher, self._watcher = budget, searcher, watcher
        self._lost = lost

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if is_over := self._budget.interrupted.is_set():
            self._watcher.stopping()
        if self._searcher.broken is None and (why := self._lost()):
            self._searcher.broken = ClusterError(
                f"the cluster has no room for a trial any more: {why}"
            )
        return is_over or self._searcher.broken is not None


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
    lost: Callable[[], str | None] = lambda: None,
) -> None:
    """Let Tune run trials for as long as the budget allows.

    Args:
        trainable: Tune's, with what it needs of the cluster; `ServingTrial` but in benchmarks.
        at_once: how many run at the same time.
        verbose: Tune's own.
        lost: why no trial can be placed any more.
    """

    def started(task: Task) -> None:
        study.spend(budget.spent_s)
        watcher.started(task)

    def finished(result: TrialResult) -> None:
        study.spend(budget.spent_s)
        run.append(result)
        watcher.finished(result, study.best)

    searcher = StudySearcher(
        study,
        budget.may_start,
        started,
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
            stop=_Stopper(budget, searcher, watcher, lost),
            callbacks=[JsonLoggerCallback(), TBXLoggerCallback(), _TuneCallback(watcher)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=verbose,
        ),
    )
    # Tune's own record of its state: nothing is restored from it, and a full disk is told below.
    logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)
    if not verbose:  # A trial's loss has its sentence.
        logging.getLogger("ray.tune.execution.tune_controller").setLevel(logging.CRITICAL)
    tuner.fit()
    if searcher.broken:
        raise searcher.broken


@contextlib.contextmanager
def recording(run: Run) -> Iterator[None]:
    """Where something of a run is written: a full disk, a storage that is gone, is a sentence.

    Raises:
        RecordError: it cannot be written.
    """
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
