"""The commands tune, sweep and resume."""

from __future__ import annotations

from typing import Any

import typer
from rich.console import Console

from search.cli.console import create_console
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
from search.errors import CommandError, RequirementError
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
    loaded = load_spec(spec).on_cluster(cluster)
    preflight(loaded)
    if loaded.sweep is not None:
        raise CommandError(f"{spec} describes a sweep; run servetune sweep")
    run = _create_run(loaded)
    run.extend(trials=trials, time_budget_s=time_budget_s, rounds=confirm)
    _run_and_report(run, plain, ray_output)


def sweep(
    spec: SpecArgument,
    cluster: ClusterOption = None,
    plain: PlainOption = False,
    ray_output: RayOption = False,
) -> None:
    """Measure every point of a space under the listed loads, in random order."""
    loaded = load_spec(spec).on_cluster(cluster)
    preflight(loaded, allow_fixed_space=True)
    if loaded.sweep is None:
        raise CommandError(f"{spec} has no section `sweep`; run servetune tune")
    _run_and_report(_create_run(loaded), plain, ray_output)


def resume(
    run: RunArgument,
    trials: TrialsOption = None,
    time_budget_s: BudgetOption = None,
    confirm: ConfirmOption = None,
    plain: PlainOption = False,
    ray_output: RayOption = False,
) -> None:
    """Continue a run that was interrupted, or extend the budget of one that ended."""
    from search.study.run_folder import Run

    opened = Run.open(run)
    if opened.spec().sweep and (trials is not None or confirm is not None):
        raise CommandError("--trials and --confirm do not apply to a sweep; remove them")
    with opened.locked():
        opened.extend(trials=trials, time_budget_s=time_budget_s, rounds=confirm)
    _run_and_report(opened, plain, ray_output)


def _create_run(spec: Any) -> Any:
    from search.study.driver import create_run
    from search.trial.host_lock import exclusive_host

    if spec.cluster.address is None:
        with exclusive_host():
            pass  # Refuse a busy host before a folder is created.
    return create_run(spec)


def _run_with_view(run: Any, spec: Any, console: Console, plain: bool, ray_output: bool) -> Any:
    from search.cli.live import LiveView
    from search.study.driver import run_study
    from search.study.warm_start import warm_start_differences

    plain = plain or ray_output or not console.is_terminal
    console.print(f"run {run.folder}", soft_wrap=True)
    for difference in warm_start_differences(run, spec):
        console.print(f"difference from the warm-start run: {difference}")
    trials = len(spec.points()) if spec.sweep else spec.search.trials
    with LiveView(
        console, trials, spec.search.time_budget_s, plain, spec.confirmation_rounds
    ) as view:
        return run_study(run, view, ray_output)


def _run_and_report(run: Any, plain: bool, ray_output: bool) -> None:
    from search.export.files import export
    from search.report.summary import render, write_report
    from search.sinks.end import with_sinks
    from search.study.reading import recording

    spec = run.spec()
    console = create_console()

    def execute() -> Any:
        outcome = _run_with_view(run, spec, console, plain, ray_output)
        with recording(run):
            write_report(outcome)
            if outcome.chosen is not None and not outcome.failed:
                export(run, outcome.chosen, spec.archive(), outcome.confirmation)
        return outcome

    outcome = with_sinks(run, execute, _warn)
    if outcome.failed:
        raise ServerError(FailureKind.BASELINE_FAILED, outcome.reason or "")
    console.print(render(outcome))
    if spec.sweep and not outcome.interrupted and not any(r.loads for r in outcome.results):
        raise ServerError(FailureKind.NO_RATE, "no point of the sweep could be measured")
    if spec.sweep is None and outcome.best is None and not outcome.interrupted:
        if outcome.objective.has_limits and outcome.closest:
            from search.report.objective_text import closest_sentences

            raise RequirementError(
                f"no configuration meets the goal. {' '.join(closest_sentences(outcome))}"
            )
        raise ServerError(FailureKind.NO_RATE, "no configuration sustained any rate")
    if outcome.chosen is not None:
        console.print(f"Files for production: {run.folder / 'best'}", soft_wrap=True)
    if outcome.interrupted:
        console.print(f"Continue with: servetune resume {run.folder}", soft_wrap=True)
        raise typer.Exit(ExitStatus.INTERRUPTED)


def _warn(warning: str) -> None:
    create_console(stderr=True, soft_wrap=True).print(f"warning: {warning}")
