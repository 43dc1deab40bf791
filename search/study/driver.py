"""A whole run: its cluster, its trials, its confirmation, its budget, its end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray import tune

from loadgen.payloads import Payload
from search.cluster.confirmation_host import ConfirmationHost
from search.cluster.placement import ClusterMonitor, single_host_placement
from search.cluster.ray_session import ray_cluster
from search.cluster.survey import Survey
from search.cluster.trial_actor import TrialSetup
from search.cluster.trial_trainable import TuneTrial
from search.errors import ClusterError, RunError
from search.spec.schema import StudySpec
from search.study.budget import INTERRUPTED, Budget
from search.study.confirm import Plan, confirm
from search.study.diff import changes
from search.study.observer import StudyObserver
from search.study.outcome import Outcome
from search.study.reading import open_store, outcome_of, recording
from search.study.run_folder import Run
from search.study.store import StudyStore
from search.study.tune_adapter import tune_trials
from search.study.warm_start import warm_points
from search.trial.host_info import describe_host, describe_versions
from search.trial.host_lock import exclusive_host
from search.trial.observation import Phase, WindowSummary
from search.trial.request import TrialRequest
from search.trial.result import TrialResult
from serving.site import Site


def create_run(spec: StudySpec) -> Run:
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
            survey.check(spec.load.process_limit)
            recorded |= survey.describe(spec.load.process_limit)
    return Run.create(spec, recorded)


def _survey(spec: StudySpec) -> Survey:
    return Survey(spec.serving.python, spec.serving.java)


def run_study(
    run: Run,
    observer: StudyObserver,
    ray_output: bool = False,
    handle_signals: bool = True,
) -> Outcome:
    """Run a study until its budget is spent, or go on with it.

    Args:
        run: its folder.
        watcher: is told what happens.
        ray_output: let Ray and Tune print what they print.
        handle_signals: end the run gracefully on the first Ctrl-C or SIGTERM.

    Raises:
        ServerError: no TorchServe or no Java here.
        RunError: the folder is no run's, its specification was changed, another run is on
            a host, or the cluster cannot place a trial.
        RecordError: what is measured cannot be written down.
        ClusterError: the cluster has no room for a trial any more, or Ray failed.
    """
    spec = run.spec()
    address, processes = spec.cluster.address, spec.load.process_limit
    site, payloads = spec.site(spec.installation()), tuple(spec.payloads())
    # On a cluster its serving hosts are held, not this one.
    with contextlib.ExitStack() as stack:
        stack.enter_context(run.locked())
        if address is None:
            stack.enter_context(exclusive_host())
        stack.enter_context(recording(run))
        study = open_store(run, spec)
        if _keep_to_specification(run, study):
            study.close_search(None)
        study.restore(run.results())
        study.begin([] if study.results else warm_points(spec))
        run.rebuild(study.results)
        budget = Budget(spec, study)
        searches = budget.may_start()
        if not searches and not budget.unconfirmed():
            study.end(budget.reason)
            return outcome_of(run, spec, study, failed=budget.failed)
        kept = f"what was measured is kept, and servetune resume {run.folder} goes on"
        ended = f"servetune: this run's process was killed, or its Ray was; {kept}"
        try:
            handlers = _current_handlers()
            # The handlers after the cluster: ray.init sets its own for SIGTERM.
            with (
                ray_cluster(address, processes, ray_output, ended),
                _interruptible(budget) if handle_signals else _restored(handlers),
            ):
                with _trial_setup(run, spec, study, site, payloads) as setup:
                    _measure(run, study, budget, observer, setup, searches, ray_output)
        except ClusterError as error:
            raise ClusterError(f"{error}; {kept}") from error
        study.end(INTERRUPTED if budget.interrupted.is_set() else budget.reason)
    return outcome_of(run, spec, study, budget.failed, budget.interrupted.is_set())


def _measure(
    run: Run,
    study: StudyStore,
    budget: Budget,
    observer: StudyObserver,
    setup: TrialSetup,
    searches: bool,
    ray_output: bool,
) -> None:
    """Search where that is not over, then confirm what is to be."""
    if searches:
        trainable = tune.with_resources(
            tune.with_parameters(TuneTrial, setup=setup),
            tune.PlacementGroupFactory(**setup.placement_request()),
        )
        at_once = setup.placement.max_concurrent_trials(setup.process_limit)
        lost = ClusterMonitor(setup.placement, setup.process_limit).persistent_shortage
        verbose = 2 if ray_output else 0
        tune_trials(run, study, budget, observer, trainable, at_once, verbose, lost)
        if not budget.interrupted.is_set():
            study.close_search(budget.reason)
    if plan := budget.unconfirmed():
        asyncio.run(_confirm(run, study, plan, setup, budget, observer))


@contextlib.contextmanager
def _trial_setup(
    run: Run, spec: StudySpec, study: StudyStore, site: Site, payloads: tuple[Payload, ...]
) -> Iterator[TrialSetup]:
    """What a trial is made of: on this host, or on those of the cluster."""
    load = spec.load
    placement, inbox = single_host_placement(site.archive, load.process_limit), None
    with contextlib.ExitStack() as stack:
        if spec.cluster.address is not None:
            survey = stack.enter_context(_survey(spec))
            survey.check(load.process_limit)
            keep_heterogeneous = spec.cluster.heterogeneous_hosts == "keep"
            placement, inbox = survey.prepare_hosts(
                site.archive, run.folder, keep_heterogeneous, load.process_limit
            )
            study.note(placement.warnings)
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
        )


#: What may change between a run and its resumption: when it ends.
CHANGEABLE = {f"search.{name}" for name in ("trials", "time_budget_s", "patience", "target_rps")}
CHANGEABLE |= {"confirm", "confirm.rounds", "confirm.finalists"}
CHANGEABLE |= {"cluster.address", "cluster.heterogeneous_hosts"}


def _keep_to_specification(run: Run, study: StudyStore) -> bool:
    """Whether something was changed of what may be."""
    now = run.specified()
    if (before := study.specified) is not None:
        changed = changes(before, now)
        if wrong := [f"{path} {how}" for path, how in changed.items() if path not in CHANGEABLE]:
            raise RunError(
                f"{run.folder / 'spec.yaml'} was changed since the run began: {'; '.join(wrong)}; "
                f"put it back, or start a new run (only {', '.join(sorted(CHANGEABLE))} may change)"
            )
    study.specify(now)
    return before != now


async def _confirm(
    run: Run,
    study: StudyStore,
    plan: Plan,
    setup: TrialSetup,
    budget: Budget,
    observer: StudyObserver,
) -> None:
    """Carry out a plan, as far as time allows, on one host."""
    spec = run.spec()
    assert spec.confirm is not None

    async def measure(number: int, request: TrialRequest, where: Path) -> TrialResult:
        def tell(told: Phase | WindowSummary) -> None:
            if isinstance(told, WindowSummary):
                observer.window(request.number, told)
            else:
                observer.phase(request.number, told.name, told.rate_rps)

        observer.confirming(number, request)
        result = await bench.measure(request, run.folder / where, tell)
        study.spend(budget.spent_s)
        observer.confirmed(number, result)
        return result

    def may_start(number: int) -> bool:
        return budget.has_time_for_round(plan, number)

    async with ConfirmationHost(setup) as bench:
        work = asyncio.ensure_future(confirm(study, plan, spec.confirm.rounds, may_start, measure))
        while not work.done():
            if budget.interrupted.is_set():
                observer.stopping()
                work.cancel()
            await asyncio.wait({work}, timeout=0.5)
        if not work.cancelled():
            work.result()


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
