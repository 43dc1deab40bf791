"""The commands report, compare, export and verify."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from search.cli.options import JsonOption, RunArgument
from search.cli.running import _phase, _run
from search.errors import CommandError, RunError
from servetune.errors import ExitStatus


def report(run: RunArgument, as_json: JsonOption = False) -> None:
    """Print a run's trials, best against baseline, and the importance of each setting."""
    found = _outcome(run)
    if as_json:
        best, reference = found.best, found.reference
        data = {
            "run": found.run.name,
            "ended": found.reason,
            "best": best.to_dict() if best else None,
            "reference": reference.to_dict() if reference else None,
            "chosen": found.chosen.to_dict() if found.chosen else None,
            "confirmation": found.confirmation.summary() if found.confirmation else None,
            "importance": dict(found.importance),
            "trials": [result.to_dict() for result in found.results],
        }
        print(json.dumps(data))
    else:
        from search.report.summary import render, write_report

        write_report(found)
        Console().print(render(found))


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN…", help="two runs or more")],
) -> None:
    """Put runs side by side: what differs between them, their figures, the ratios."""
    if len(runs) < 2:
        raise CommandError("compare needs two runs or more")
    from search.report.compare import compare as compared

    text = compared([_outcome(run) for run in runs])
    Console().print(text, highlight=False, markup=False, soft_wrap=True)


def export(
    run: RunArgument,
    trial: Annotated[int | None, typer.Option(help="another trial than the best")] = None,
    form: Annotated[
        str, typer.Option("--format", help="properties, model-config or compose")
    ] = "properties",
    base: Annotated[
        Path | None,
        typer.Option(help="the config.properties in use: its lines stay but for what was tuned"),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="a property of the place, as TLS files"),
    ] = None,
    image: Annotated[str | None, typer.Option(help="of the compose file")] = None,
) -> None:
    """Write the files that production takes into RUN/best, or RUN/best-FORMAT."""
    from search.export.files import IMAGE, ExportFormat
    from search.export.files import export as write_files
    from serving.production import DeploymentTarget

    if form not in set(ExportFormat):
        raise CommandError(f"--format must be one of {', '.join(ExportFormat)}, got {form!r}")
    pairs = [text.partition("=") for text in given or ()]
    if odd := [name for name, equals, _ in pairs if not equals]:
        raise CommandError(f"--set takes KEY=VALUE, got {odd[0]!r}")
    target = DeploymentTarget(_text_of(base), {name: text for name, _, text in pairs})
    found = _outcome(run)
    results = {result.number: result for result in found.results}
    if trial is not None and trial not in results:
        raise RunError(f"{run} has no trial {trial}")
    chosen = found.chosen if trial is None else results[trial]
    if found.spec.sweep:
        raise RunError(f"{run} is a sweep, which chooses nothing; tune searches for the best")
    if chosen is None:
        raise RunError(f"no trial of {run} sustained any rate")
    archive = found.spec.archive()
    written = write_files(
        *(
            found.run,
            chosen,
            archive,
            found.confirmation,
            ExportFormat(form),
            target,
            image or IMAGE,
        )
    )
    console = Console(highlight=False, soft_wrap=True)
    console.print(written.diff, end="", markup=False)
    for note in written.notes:
        console.print(f"note: {note}", markup=False)
    console.print(f"trial {chosen.number} → {written.folder}", markup=False)


def verify(
    files: Annotated[Path, typer.Argument(metavar="FILES", help="a folder that export wrote")],
    against: Annotated[
        Path | None, typer.Option(metavar="RUN", help="the run that they come from")
    ] = None,
    requests: Annotated[Path | None, typer.Option(help="what to ask, where not the run's")] = None,
    model_store: Annotated[
        Path | None, typer.Option(help="the folder of the archive, where not the run's")
    ] = None,
    windows: Annotated[int, typer.Option(min=1, help="at the claimed rate; most must hold")] = 3,
) -> None:
    """Start exported files, and compare settings and rate with what was measured."""
    from search.export.verify import verify as verified
    from search.study.run_folder import Run

    console = Console(highlight=False)

    def progress(name: str, rate: float) -> None:
        console.print(_phase(name, rate), style="dim")

    run = Run.open(against) if against else None
    checks = _run(verified(files, run, requests, model_store, windows, progress))
    table = Table("", "what", "found")
    for check in checks:
        table.add_row("ok" if check.passed else "✗", check.what, check.told)
    console.print(table)
    wrong = [check for check in checks if not check.passed]
    console.print(f"FAIL: {', '.join(check.what for check in wrong)}" if wrong else "PASS")
    if wrong:
        raise typer.Exit(ExitStatus.FAILED)


def _text_of(path: Path | None) -> str | None:
    try:
        return path.read_text("latin-1") if path else None
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from None


def _outcome(folder: Path) -> Any:
    from search.study.reading import read_outcome
    from search.study.run_folder import Run

    run = Run.open(folder)
    return read_outcome(run)
