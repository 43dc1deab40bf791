"""The commands tune, sweep and resume."""

from __future__ import annotations

from typing import Any

import typer
from rich.console import Console

from search.cli.options import (
    BudgetOption,
    ClusterOption,
    ConfirmOption,
    PlainOption,
    RayOption,
    RunArgument,
    SpecArgument,
    TrialsOption,
)
from search.errors import CommandError
from search.spec.loading import load_spec
from search.spec.preflight import preflight
from servetune.errors import ExitStatus, FailureKind
from serving.errors import ServerError


def tune(
    spec: SpecArgument,
    trials: TrialsOption = None,
    time_budget_s: BudgetOption = None,
    confirm: ConfirmOption = None,
    cluster: ClusterOption = None,
    plain: PlainOption = False,
    ray_output: RayOption = False,
) -> None:
    """Search for the best configuration."""
    found = load_spec(spec).on_cluster(cluster)
    preflight(found)
    if found.sweep is not None:
        raise CommandError(f"{spec} describes a sweep; run it with servetune sweep")
    run = _new_run(found)
    run.extend(trials=trials, time_budget_s=time_budget_s, rounds=confirm)
    _execute(run, plain, ray_output)


def sweep(
    spec: SpecArgument,
    cluster: ClusterOption = None,
    plain: PlainOption = False,
    ray_output: RayOption = False,
) -> None:
    """Measure every point of a space under chosen loads, in random order."""
    found = load_spec(spec).on_cluster(cluster)
    preflight(found, allow_fixed_space=True)
    if found.sweep is None:
        raise CommandError(f"{spec} has no section `sweep`; tune searches it")
    _execute(_new_run(found), plain, ray_output)


def resume(
    run: RunArgument,
    trials: TrialsOption = None,
    time_budget_s: BudgetOption = None,
    confirm: ConfirmOption = None,
    plain: PlainOption = False,
    ray_output: RayOption = False,
) -> None:
    """Go on with a run that was interrupted, or with one whose budget was made larger."""
    from search.study.run_folder import Run

    opened = Run.open(run)
    if opened.spec().sweep and (trials or confirm):
        raise CommandError("a sweep has its points: --trials and --confirm are a search's")
    with opened.locked():
        opened.extend(trials=trials, time_budget_s=time_budget_s, rounds=confirm)
    _execute(opened, plain, ray_output)


def _new_run(spec: Any) -> Any:
    from search.study.driver import create_run
    from search.trial.host_lock import exclusive_host

    if spec.cluster.address is None:
        with exclusive_host():
            pass  # Refused before there is a folder.
    return create_run(spec)


def _execute(run: Any, plain: bool, ray_output: bool) -> None:
    from search.cli.live import LiveView
    from search.report.summary import render, write_report
    from search.study.driver import run_study
    from search.study.reading import recording
    from search.study.warm_start import warm_start_differences

    spec = run.spec()
    console = Console()
    plain = plain or ray_output or not console.is_terminal
    console.print(f"run {run.folder}", highlight=False, soft_wrap=True)
    for difference in warm_start_differences(run, spec):
        console.print(f"the warm start's run differs: {difference}", highlight=False)
    rounds = spec.confirm.rounds if spec.confirm else 0
    search = spec.search
    trials = len(spec.points()) if spec.sweep else search.trials
    with LiveView(console, trials, search.time_budget_s, plain, rounds) as view:
        found = run_study(run, view, ray_output)
    with recording(run):
        write_report(found)
    if found.failed:
        raise ServerError(FailureKind.BASELINE_FAILED, found.reason or "")
    console.print(render(found))
    if spec.sweep and not found.interrupted and not any(r.loads for r in found.results):
        raise ServerError(FailureKind.NO_RATE, "no point of the sweep could be measured")
    if spec.sweep is None and found.best is None and not found.interrupted:
        raise ServerError(FailureKind.NO_RATE, "no configuration sustained any rate")
    if found.chosen is not None:
        from search.export.files import export as write_files

        with recording(run):
            write_files(run, found.chosen, spec.archive(), found.confirmation)
        where = run.folder / "best"
        console.print(f"The files for production: {where}", highlight=False, soft_wrap=True)
    if found.interrupted:
        console.print(f"servetune resume {run.folder} goes on.", highlight=False, soft_wrap=True)
        raise typer.Exit(ExitStatus.INTERRUPTED)
