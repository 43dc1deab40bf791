"""The functions of the Python API. Use them as `servetune.tune`, not from this module."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from loadgen.payloads import Payload, read_payloads
from loadgen.rate.goal import Goal
from loadgen.rate.result import SustainedRate
from loadgen.tls import Tls
from search.confirmation.rounds import Rounds
from search.errors import CommandError
from search.spec.config_file import read_config as read_config_file
from search.spec.preflight import preflight
from search.spec.schema import StudySpec
from search.study import run_folder
from search.study.observer import EventObserver, StudyEvent
from search.study.outcome import Outcome
from search.trial.observation import Phase
from servetune.run import Run
from serving.archive import Archive
from serving.configuration.config import ServerConfig

T = TypeVar("T")
_LOG = logging.getLogger("servetune")
OnEvent = Callable[[StudyEvent], None]


def tune(
    spec: StudySpec,
    *,
    trials: int | None = None,
    time_budget_s: float | None = None,
    confirm: int | None = None,
    cluster: str | None = None,
    on_event: OnEvent | None = None,
    handle_signals: bool = False,
) -> Outcome:
    """Search for the best configuration.

    Args:
        trials: overrides `search.trials`.
        time_budget_s: overrides `search.time_budget_s`, seconds.
        confirm: maximum number of rounds of the confirmation, 0 for none; overrides
            `confirm.rounds`.
        cluster: address of a Ray cluster that this host belongs to; overrides `cluster.address`.
        on_event: called with each event, in the thread that runs the study.
        handle_signals: let the first Ctrl-C or SIGTERM end the run gracefully, as the command
            does. Otherwise KeyboardInterrupt is raised; what was measured is kept either way.

    Returns:
        What was found; `outcome.run` is the run's folder.

    Raises:
        SpecError: the specification cannot run on this host; nothing was started.
        ServetuneError: the run failed; see the subclasses.
    """
    if spec.sweep is not None:
        raise CommandError("the specification describes a sweep; use servetune.sweep")
    spec = spec.on_cluster(cluster)
    preflight(spec)
    run = _create(spec)
    run.extend(trials=trials, time_budget_s=time_budget_s, rounds=confirm)
    return _execute(run, on_event, handle_signals)


def sweep(
    spec: StudySpec,
    *,
    cluster: str | None = None,
    on_event: OnEvent | None = None,
    handle_signals: bool = False,
) -> Outcome:
    """Measure every point of a space under the loads that the specification lists.

    Args and errors are those of `tune`.
    """
    if spec.sweep is None:
        raise CommandError("the specification has no section `sweep`; use servetune.tune")
    spec = spec.on_cluster(cluster)
    preflight(spec, allow_fixed_space=True)
    return _execute(_create(spec), on_event, handle_signals)


def resume(
    run: run_folder.Run | Path | str,
    *,
    trials: int | None = None,
    time_budget_s: float | None = None,
    confirm: int | None = None,
    on_event: OnEvent | None = None,
    handle_signals: bool = False,
) -> Outcome:
    """Continue a run that was interrupted, or extend one that ended.

    Args and errors are those of `tune`.
    """
    opened = _opened(run)
    if opened.spec().sweep and (trials is not None or confirm is not None):
        raise CommandError("a sweep measures its points once: trials and confirm are a search's")
    with opened.locked():
        opened.extend(trials=trials, time_budget_s=time_budget_s, rounds=confirm)
    return _execute(opened, on_event, handle_signals)


def measure(
    spec: StudySpec,
    configs: Sequence[ServerConfig],
    *,
    rounds: int = 1,
    side_by_side: bool = False,
    keep: Path | None = None,
    on_event: OnEvent | None = None,
) -> Rounds:
    """Measure the sustained rate of given configurations, interleaved, in fresh servers.

    Args:
        spec: the model, the requests and the goal.
        rounds: how often each configuration is measured.
        side_by_side: run a round's servers at the same time, one window at a time in turn.
        keep: a new folder that receives the files of every measurement.
        on_event: called with a `phase` event for each phase; `number` is the configuration's index.

    Raises:
        SpecError: the specification cannot run on this host.
        ServetuneError: a measurement failed for a reason that is not a configuration's.
    """
    from search.measure.configs import measure_configs

    preflight(spec, allow_fixed_space=True)

    def progress(round_number: int, index: int, phase: Phase) -> None:
        data = {"round": round_number, "number": index, **vars(phase)}
        _emit(on_event, StudyEvent("phase", data))

    return _run(
        lambda: asyncio.run(
            measure_configs(spec, list(configs), rounds, progress, side_by_side, keep)
        )
    )


def find_sustained_rate(
    url: str,
    requests: Path | str | Sequence[Payload],
    goal: Goal | None = None,
    *,
    users: int | None = None,
    batch_size: int = 1,
    ca_file: Path | None = None,
    insecure: bool = False,
    on_event: OnEvent | None = None,
) -> SustainedRate:
    """Find the sustained rate of an endpoint that already runs, from this host, without Ray.

    Args:
        url: receives every request that has no path; the others are sent to their path at the
            URL's root.
        requests: a requests file, or the requests.
        goal: what is looked for; `Goal()` if None.
        users: of the closed loop, enough to keep the server busy; None to find their number.
        batch_size: a guess of how many requests the server takes in one batch.
        ca_file: a PEM file with the authority of an https URL's certificate.
        insecure: accept any certificate.
        on_event: called with a `phase` event for each phase and rate.

    Raises:
        PayloadError, CertificateError: the requests, or the file of certificates, cannot be used.
        InputError: the URL is not valid.
        CommandError: the endpoint's certificate cannot be verified.
        GeneratorDefectError: a defect of the load generator ended the measurement.
        GeneratorLostError: a load generator process was lost twice.
    """
    from search.measure.endpoint import measure_url

    if isinstance(requests, Path | str):
        payloads = read_payloads(Path(requests))
    else:
        payloads = list(requests)

    def progress(name: str, rate_rps: float) -> None:
        _emit(on_event, StudyEvent("phase", {"name": name, "rate_rps": rate_rps}))

    tls = Tls.read(ca_file) if ca_file else Tls(is_verified=not insecure)
    return _run(
        lambda: asyncio.run(
            measure_url(
                url, payloads, goal or Goal(), users, progress, batch_size=batch_size, tls=tls
            )
        )
    )


def read_config(path: Path | str, archive: Archive | Path | str) -> ServerConfig:
    """Read a config.properties, and the file `environment` beside it if there is one.

    Args:
        archive: the model archive; its name and version select the model's own settings.

    Raises:
        ConfigError, ArchiveError: a file cannot be read, or holds what TorchServe does not know.
    """
    model = archive if isinstance(archive, Archive) else Archive.read(Path(archive))
    return read_config_file(Path(path), model).config


def load_outcome(run: run_folder.Run | Path | str) -> Outcome:
    """Return what is known of a run that ended, or that is still going on.

    Raises:
        RunError: the folder is not a run's.
    """
    from search.study.reading import read_outcome

    return _public(read_outcome(_opened(run)))


def _opened(run: run_folder.Run | Path | str) -> run_folder.Run:
    return run if isinstance(run, run_folder.Run) else Run.open(Path(run))


def _public(outcome: Outcome) -> Outcome:
    """Return the outcome with the run that has the methods of the API."""
    return replace(outcome, run=Run(outcome.run.folder))


def _create(spec: StudySpec) -> run_folder.Run:
    from search.study.driver import create_run

    return create_run(spec)


def _execute(run: run_folder.Run, on_event: OnEvent | None, handle_signals: bool) -> Outcome:
    from search.sinks.end import with_sinks
    from search.study.driver import run_study

    observer = EventObserver(lambda event: _emit(on_event, event))

    def execute() -> Outcome:
        return run_study(run, observer, handle_signals=handle_signals)

    return _public(_run(lambda: with_sinks(run, execute, _LOG.warning)))


def _emit(on_event: OnEvent | None, event: StudyEvent) -> None:
    if on_event is not None:
        on_event(event)


def _run(work: Callable[[], T]) -> T:
    """Call `work`; in a thread if an event loop runs in this one, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(work).result()
