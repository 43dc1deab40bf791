"""The commands report, compare, export and verify."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from loadgen.formatting import format_percent, format_rps
from search.cli.console import create_console
from search.cli.options import JsonOption, PickOption, RunArgument
from search.cli.running import format_phase, run_coroutine
from search.errors import CommandError, RunError
from search.headroom import DEFAULT_HEADROOM, MAX_HEADROOM
from servetune.errors import ExitStatus

if TYPE_CHECKING:
    from search.study.run_folder import Run

ExportedFolder = Annotated[
    Path, typer.Argument(metavar="FILES", help="path of a folder that servetune export wrote")
]
RunOfFiles = Annotated[
    Path | None,
    typer.Option(
        "--against",
        metavar="RUN",
        help="path of the run's folder that the files come from; by default the one that FILES is "
        "in, if any",
    ),
]
RequestsOfFiles = Annotated[
    Path | None, typer.Option(help="path of the requests file, if not that of the run")
]
StoreOfFiles = Annotated[
    Path | None, typer.Option(help="path of the archive's folder, if not that of the run")
]


def report(run: RunArgument, as_json: JsonOption = False) -> None:
    """Print a run's trials, the best and the reference, and the importance of each setting.

    The report is also written to RUN, unless no trial has finished or RUN is read-only. If the
    study of the run cannot be read, an earlier report in RUN stays as it is.
    """
    outcome = _read_outcome(run)
    if as_json:
        from search.confirmation.summary import confirmation_summary

        best, reference, found = outcome.best, outcome.reference, outcome.confirmation
        data = {
            "run": outcome.run.folder.name,
            "ended": outcome.reason,
            "best": best.to_dict() if best else None,
            "reference": reference.to_dict() if reference else None,
            "chosen": outcome.chosen.to_dict() if outcome.chosen else None,
            "closest": [
                {"trial": result.number, "misses": [str(shortfall) for shortfall in missed]}
                for result, missed in outcome.closest
            ],
            "confirmation": confirmation_summary(found) if found else None,
            "importance": dict(outcome.importance),
            "trials": [result.to_dict() for result in outcome.results],
        }
        print(json.dumps(data))
    else:
        from search.report.summary import render, write_report

        try:
            write_report(outcome)
        except OSError as error:
            errors = create_console(stderr=True, soft_wrap=True)
            errors.print(f"the files of the report were not written: {error}")
        create_console().print(render(outcome))


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN…", help="paths of two or more runs' folders")
    ],
) -> None:
    """Compare runs: what differs between them, their rates, and the ratios."""
    if len(runs) < 2:
        raise CommandError("compare needs at least two runs")
    from search.report.compare import compare as compare_outcomes

    text = compare_outcomes([_read_outcome(run) for run in runs])
    create_console().print(text, soft_wrap=True)


def export(
    run: RunArgument,
    trial: Annotated[
        int | None, typer.Option(help="number of the trial to export; the same as --pick trial=N")
    ] = None,
    pick: PickOption = None,
    export_format: Annotated[
        str,
        typer.Option(
            "--format",
            help="format of the files: properties, model-config, compose, docker, systemd, "
            "sagemaker, kserve or kubernetes",
        ),
    ] = "properties",
    base: Annotated[
        Path | None,
        typer.Option(
            help="path of the config.properties in use; lines that were not tuned are kept"
        ),
    ] = None,
    properties: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="property of the deployment, such as the path of a TLS key; may be repeated",
        ),
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="container image, for the formats that name one")
    ] = None,
    rps: Annotated[
        float | None,
        typer.Option(min=0.001, help="expected load of all replicas, requests per second"),
    ] = None,
    headroom: Annotated[
        float, typer.Option(min=0, max=MAX_HEADROOM, help="share of the claimed rate to keep free")
    ] = DEFAULT_HEADROOM,
    pr_body: Annotated[
        Path | None,
        typer.Option(
            "--pr-body", metavar="FILE", help="path of a Markdown text to write, for a pull request"
        ),
    ] = None,
) -> None:
    """Write a trial's configuration as files for production to RUN/best or RUN/best-FORMAT."""
    from search.answer.pareto import pareto_points
    from search.answer.picking import NOT_RECOMMENDED, limit_notes
    from search.answer.picking import pick as pick_point
    from search.export.common import ExportFormat
    from search.export.files import export as write_files
    from search.spec.config_file import read_files
    from serving.configuration.production import DeploymentTarget

    if export_format not in set(ExportFormat):
        known = ", ".join(ExportFormat)
        raise CommandError(f"--format must be one of {known} (got {export_format!r})")
    if pr_body is not None and (pr_body.is_dir() or not pr_body.parent.is_dir()):
        raise CommandError(f"--pr-body must be a file in an existing folder (got {pr_body})")
    pairs = [text.partition("=") for text in properties or ()]
    if invalid := [name for name, equals, _ in pairs if not equals]:
        raise CommandError(f"--set must be KEY=VALUE (got {invalid[0]!r})")
    text, variables = read_files(base) if base else (None, {})
    target = DeploymentTarget(text, {name: value for name, _, value in pairs}, variables)
    outcome = _read_outcome(run)
    if trial is not None and pick is not None:
        raise CommandError("pass either --trial or --pick")
    results = {result.number: result for result in outcome.results}
    if trial is not None and trial not in results:
        raise RunError(f"{run} has no trial {trial}")
    if outcome.spec.sweep:
        raise RunError(f"{run} is a sweep: it has no recommended configuration; run servetune tune")
    limits: list[str] = []
    if pick is not None:
        picked = pick_point(pareto_points(outcome), pick)
        # Its own number is that of the measurement whose rate is claimed.
        trial, limits = picked.number, limit_notes(picked, pick)
    chosen = outcome.chosen if trial is None else results[trial]
    if chosen is None:
        is_served = any(result.sustained_rps for result in outcome.results)
        why = NOT_RECOMMENDED if is_served else "no trial sustained any rate"
        raise RunError(f"{run}: {why}")
    archive = outcome.spec.archive()
    written = write_files(
        outcome.run,
        chosen,
        archive,
        outcome.confirmation,
        ExportFormat(export_format),
        target,
        image,
        rps,
        headroom,
    )
    console = create_console(soft_wrap=True)
    console.print(written.diff, end="")
    for note in (*written.notes, *limits):
        console.print(f"note: {note}")
    console.print(f"trial {chosen.number} → {written.folder}")
    if pr_body is not None:
        from search.export.pull_request import pull_request_text

        body = pull_request_text(
            outcome.run,
            chosen,
            outcome.reference,
            archive,
            written.confirmation,
            ExportFormat(export_format),
            written.resource_name,
            written.notes,
            written.diff,
        )
        try:
            pr_body.write_text(body)
        except OSError as error:
            raise CommandError(f"{pr_body} cannot be written: {error.strerror}") from None
        console.print(f"pull request → {pr_body}")


def verify(
    files: ExportedFolder,
    against: RunOfFiles = None,
    requests: RequestsOfFiles = None,
    model_store: StoreOfFiles = None,
    windows: Annotated[
        int,
        typer.Option(
            min=1,
            help="number of windows at the claimed rate; more than half must sustain it, without "
            "a failed request in any",
        ),
    ] = 3,
) -> None:
    """Start exported files, and compare settings and rate with the trial they come from."""
    from search.export.not_checked import not_checked
    from search.export.schema_check import check_schemas
    from search.export.verify import verify as check_files
    from serving.platforms.reading import read_platform

    console = create_console()
    on_phase = _phase_printer(console)
    run = _run_of(files, against, requests, model_store)
    checks = run_coroutine(check_files(files, run, requests, model_store, windows, on_phase))
    table = Table("", "check", "found")
    for check in checks:
        table.add_row("ok" if check.passed else "✗", check.what, check.found)
    console.print(table)
    platform = read_platform(files)
    if platform is not None:
        for what in (*check_schemas(platform)[1], *not_checked(platform.platform)):
            console.print(f"not checked: {what}")
    failed = [check.what for check in checks if not check.passed]
    console.print(f"FAIL: {', '.join(failed)}" if failed else "PASS")
    if failed:
        raise typer.Exit(ExitStatus.FAILED)


def recheck(
    files: ExportedFolder,
    against: RunOfFiles = None,
    requests: RequestsOfFiles = None,
    model_store: StoreOfFiles = None,
    url: Annotated[
        str | None,
        typer.Option(help="URL of a server that runs these files; by default one is started"),
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(help="path of the history; recheck.jsonl in FILES by default"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure exported files again, and fail if their rate has fallen since earlier measurements.

    Use it in nightly jobs. The exit status is 1 if the history shows a lower rate.
    """
    from search.export.recheck import recheck as measure_again

    console = create_console(stderr=as_json)
    on_phase = _phase_printer(console)
    run = _run_of(files, against, requests, model_store)
    found = run_coroutine(measure_again(files, run, requests, model_store, url, history, on_phase))
    if as_json:
        print(
            json.dumps(
                {
                    "expected_rps": found.expected_rps,
                    "history_rps": list(found.history_rps),
                    "measured": found.measured,
                    "has_drifted": found.drift.is_drift,
                    "ratio": found.drift.ratio,
                    "problem": found.problem or None,
                }
            )
        )
    else:
        console.print(
            f"{format_rps(found.history_rps[-1])}; {format_rps(found.expected_rps)} expected, "
            f"{len(found.history_rps)} measurements in all"
        )
        if found.problem:
            console.print(f"FAIL: {found.problem}")
        elif found.drift.is_drift:
            change = format_percent(1 - found.drift.ratio)
            console.print(f"FAIL: the rate has fallen by about {change}")
        else:
            console.print("PASS: no drift")
    if found.drift.is_drift:
        raise typer.Exit(ExitStatus.FAILED)


def _run_of(
    files: Path, against: Path | None, requests: Path | None, model_store: Path | None
) -> Run | None:
    """Return the run of exported files: without an option, the one that they are in."""
    from search.study.run_folder import Run

    if against is not None:
        return Run.open(against)
    return Run.around(files) if requests is None and model_store is None else None


def _phase_printer(console: Console) -> Callable[[str, float], None]:
    """Return a function that prints each phase of a measurement."""

    def on_phase(name: str, rate_rps: float) -> None:
        console.print(format_phase(name, rate_rps), style="dim")

    return on_phase


def _read_outcome(folder: Path) -> Any:
    from search.study.reading import read_outcome
    from search.study.run_folder import Run

    return read_outcome(Run.open(folder))
