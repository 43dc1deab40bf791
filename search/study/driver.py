"""Create a run, and execute it: its trials, its confirmation, its end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray import tune

from loadgen.background import BackgroundLoad
from loadgen.payloads import Payload
from search.cluster.confirmation_host import ConfirmationHost
from search.cluster.folders import unpacked_archive
from search.cluster.placement import ClusterMonitor, single_host_placement
from search.cluster.ray_session import ray_cluster
from search.cluster.survey import Survey
from search.cluster.trial_actor import TrialSetup
from search.cluster.trial_trainable import TuneTrial
from search.confirmation.confirmation import Confirmation
from search.confirmation.measuring import confirm, confirming
from search.confirmation.noise_history import (
    NoiseEntry,
    add_to_history,
    copy_history,
    history_path,
    host_key,
)
from search.confirmation.steps import Step
from search.errors import ClusterError, RunError
from search.spec.schema import StudySpec
from search.study.budget import INTERRUPTED, Budget
from search.study.diff import changes
from search.study.observer import StudyObserver
from search.study.outcome import Outcome
from search.study.progress import Progress, so_far
from search.study.reading import confirmation_reader, open_store, outcome_of, recording
from search.study.run_folder import Run
from search.study.storage import check_storage
from search.study.store import StudyStore
from search.study.tune_adapter import tune_trials
from search.study.warm_start import earlier_results, warm_points
from search.trial.host_info import BESIDE_SERVER, describe_host, describe_versions
from search.trial.host_lock import exclusive_host
from search.trial.observation import Phase, WindowSummary
from search.trial.request import TrialRequest
from search.trial.result import TrialResult
from serving.site import Site


def create_run(spec: StudySpec) -> Run:
    """Create a run's folder with the specification, the hosts and the versions.

    Raises:
        RunError: the folder cannot be created, or the cluster cannot place a trial.
        SpecError: the storage cannot be used.
    """
    if spec.output.storage is not None:
        check_storage(spec.output.storage)
    recorded: dict[str, Any] = {
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": describe_host(),
        "versions": describe_versions(spec.installation()),
        "placement": {"load": BESIDE_SERVER},
    }
    if spec.cluster.address is not None:
        with ray_cluster(spec.cluster.address), _survey(spec) as survey:
            survey.check(spec.load.process_total)
            recorded |= survey.describe(spec.load.process_total)
    return Run.create(spec, recorded)


def _survey(spec: StudySpec) -> Survey:
    return Survey(spec.serving.python, spec.serving.java)


def run_study(
    run: Run,
    observer: StudyObserver,
    ray_output: bool = False,
    handle_signals: bool = True,
) -> Outcome:
    """Run or resume a study until its budget is spent.

    Args:
        run: the run's folder.
        observer: receives the progress.
        ray_output: let Ray and Tune print their output.
        handle_signals: end the run gracefully on the first Ctrl-C or SIGTERM.

    Raises:
        ServerError: TorchServe or Java is missing on this host.
        RunError: the folder contains no run, its specification was changed, a host is in use by
            another run, or the cluster cannot place a trial.
        RecordError: results cannot be written to the folder or the storage.
        ClusterError: the cluster no longer has room for a trial, or Ray failed.
    """
    spec = run.spec()
    address, processes = spec.cluster.address, spec.load.process_total
    site, payloads = spec.site(spec.installation()), tuple(spec.payloads())
    background = spec.background_loads()
    with contextlib.ExitStack() as stack:
        stack.enter_context(run.locked())
        if address is None:  # In a cluster, the serving hosts are locked instead.
            stack.enter_context(exclusive_host())
        stack.enter_context(recording(run))
        store = open_store(run, spec)
        if _update_specification(run, store):
            store.reopen_search()
        store.restore(run.results())
        if store.results:
            store.begin()
        else:
            store.begin(warm_points(spec), earlier_results(spec))
        run.rebuild(store.results)
        budget = Budget(spec, store, confirmation_reader(run, spec))
        may_search = budget.may_start_trial()
        if not may_search and not budget.pending_confirmation():
            store.end(budget.reason)
            return outcome_of(run, spec, store, failed=budget.failed)
        kept = f"earlier results are kept, and servetune resume {run.folder} continues the run"
        killed = f"servetune: the process of this run or its Ray was killed; {kept}"
        handlers = _current_handlers()
        try:
            # ray.init replaces the handler of SIGTERM: set the handlers after it.
            with (
                ray_cluster(address, processes, ray_output, killed),
                _interruptible(budget) if handle_signals else _restored(handlers),
                _trial_setup(run, spec, store, site, payloads, background) as setup,
            ):
                if may_search:
                    _search(run, store, budget, observer, setup, ray_output)
                if budget.pending_confirmation():
                    _copy_history(run, store)
                    asyncio.run(_confirm(run, store, setup, budget, observer))
        except ClusterError as error:
            raise ClusterError(f"{error}; {kept}") from error
        store.end(INTERRUPTED if budget.interrupted.is_set() else budget.reason)
    return outcome_of(run, spec, store, budget.failed, budget.interrupted.is_set())


def _search(
    run: Run,
    store: StudyStore,
    budget: Budget,
    observer: StudyObserver,
    setup: TrialSetup,
    ray_output: bool,
) -> None:
    """Run trials until the budget allows no more."""
    trainable = tune.with_resources(
        tune.with_parameters(TuneTrial, setup=setup),
        tune.PlacementGroupFactory(**setup.placement_request()),
    )
    max_concurrent = setup.placement.max_concurrent_trials(setup.process_total)
    shortage = ClusterMonitor(setup.placement, setup.process_total).persistent_shortage
    verbose = 2 if ray_output else 0
    tune_trials(run, store, budget, observer, trainable, max_concurrent, verbose, shortage)
    if not budget.interrupted.is_set():
        store.close_search(budget.reason)


@contextlib.contextmanager
def _trial_setup(
    run: Run,
    spec: StudySpec,
    store: StudyStore,
    site: Site,
    payloads: tuple[Payload, ...],
    background: tuple[BackgroundLoad, ...],
) -> Iterator[TrialSetup]:
    """Prepare the serving hosts, and yield the data that all trials share."""
    load = spec.load
    inbox = None
    with contextlib.ExitStack() as stack:
        if spec.cluster.address is None:
            archive, *others = (stack.enter_context(unpacked_archive(a)) for a in site.archives)
            site = replace(site, archive=archive, others=tuple(others))
            placement = single_host_placement(site.archive, load.process_total)
        else:
            survey = stack.enter_context(_survey(spec))
            survey.check(load.process_total)
            keep_heterogeneous = spec.cluster.heterogeneous_hosts == "keep"
            placement, inbox = survey.prepare_hosts(
                site.archives, run.folder, keep_heterogeneous, load.process_total
            )
        store.record_notes([*spec.baseline_notes(), *placement.warnings])
        yield TrialSetup(
            site=site,
            python=spec.serving.python,
            java=spec.serving.java,
            goal=spec.rate_goal(),
            payloads=ray.put(payloads),
            processes=load.processes,
            process_limit=load.process_limit,
            cores=tuple(load.cores),
            loads=spec.sweep.sweep_loads() if spec.sweep else (),
            placement=placement,
            inbox=inbox,
            mix=tuple(load.mix),
            background=tuple(replace(b, payloads=ray.put(b.payloads)) for b in background),
        )


#: Settings that may change before a run is resumed: its limits and its cluster.
CHANGEABLE_SETTINGS = {
    *(f"search.{name}" for name in ("trials", "time_budget_s", "patience", "target_rps")),
    "search.min_improvement_probability",
    *("confirm", "confirm.rounds", "confirm.finalists", "confirm.time_limit_s"),
    *("cluster.address", "cluster.heterogeneous_hosts"),
    *("notify", "output.mlflow"),
}


def _update_specification(run: Run, store: StudyStore) -> bool:
    """Record the specification; return whether it was changed since the run was last started.

    Raises:
        RunError: a setting was changed that must not change.
    """
    now = run.specified()
    if (before := store.specification) is not None:
        changed = [
            f"{path} {change}"
            for path, change in changes(before, now).items()
            if path not in CHANGEABLE_SETTINGS
        ]
        if changed:
            raise RunError(
                f"{run.folder / 'spec.yaml'} was changed since the run began: "
                f"{'; '.join(changed)}; restore it, or start a new run "
                f"(only {', '.join(sorted(CHANGEABLE_SETTINGS))} may change)"
            )
    store.record_specification(now)
    return before != now


async def _confirm(
    run: Run,
    store: StudyStore,
    setup: TrialSetup,
    budget: Budget,
    observer: StudyObserver,
) -> None:
    """Measure the confirmation on one host, as far as time allows."""
    read = budget.confirmation
    if (pending := read()) is None:
        return

    async def measure(step: Step, request: TrialRequest, folder: Path) -> TrialResult:
        def report(progress: Phase | WindowSummary) -> None:
            if isinstance(progress, WindowSummary):
                observer.window(request.number, progress)
            else:
                observer.phase(request.number, progress.name, progress.rate_rps, progress.left_s)

        observer.confirming(step.round_number, request)
        observer.progress(
            Progress(
                confirming(step),
                so_far(store.results, store.objective),
                budget.confirmation_end_s(step),
            )
        )
        result = await host.measure(request, run.folder / folder, report)
        store.record_spent(budget.spent_s)
        observer.confirmed(step.round_number, result)
        return result

    async with ConfirmationHost(setup) as host:
        task = asyncio.ensure_future(
            confirm(
                store,
                pending.plan,
                lambda: read() or pending,
                budget.may_start_step,
                measure,
                budget.confirmation_time.expected_s,
            )
        )
        while not task.done():
            if budget.interrupted.is_set():
                observer.stopping()
                task.cancel()
            await asyncio.wait({task}, timeout=0.5)
        if not task.cancelled():
            task.result()
    confirmation = read() or pending
    shows_noise = confirmation.plan.objective.compares_capacities
    if confirmation.rounds and shows_noise and not budget.interrupted.is_set():
        _add_to_history(run, store, confirmation)


def _copy_history(run: Run, store: StudyStore) -> None:
    """Copy the history of the noise of the run's hosts into the run, once."""
    if not run.noise_path.exists():
        hosts = {host_key(result) for result in store.results}
        if problem := copy_history(history_path(), run.noise_path, hosts):
            store.add_note(problem)


def _add_to_history(run: Run, store: StudyStore, confirmation: Confirmation) -> None:
    """Add the noise of the run's visits to the history of their host."""
    variance = confirmation.race.estimates.own_variance
    if variance.dof:
        host = host_key(next(iter(confirmation.rounds[0].values())))
        entry = NoiseEntry(run=run.name, variance=variance.value, dof=variance.dof)
        if problem := add_to_history(history_path(), host, entry):
            store.add_note(problem)


Handlers = dict[signal.Signals, Any]


def _current_handlers() -> Handlers:
    return {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}


def _set_handlers(handlers: Handlers) -> None:
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _restored(handlers: Handlers) -> Iterator[None]:
    """Run with the caller's signal handlers instead of Ray's."""
    _set_handlers(handlers)
    yield


@contextlib.contextmanager
def _interruptible(budget: Budget) -> Iterator[None]:
    """End the run gracefully on the first Ctrl-C or SIGTERM, and at once on the second."""
    before = _current_handlers()

    def interrupt(number: int, frame: FrameType | None) -> None:
        budget.interrupted.set()
        _set_handlers(before)

    _set_handlers(dict.fromkeys(before, interrupt))
    try:
        yield
    finally:
        _set_handlers(before)
