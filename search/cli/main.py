"""The command `servetune`. Each command raises; `run_command` turns errors into an exit status."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated

import typer

from search.cli.answer import pareto, plan
from search.cli.console import create_console
from search.cli.dashboard import dashboard
from search.cli.environment import ray_environment
from search.cli.hosts import demo, doctor, init, up
from search.cli.importing import import_deployment
from search.cli.jobs import fetch, jobs, submit, watch
from search.cli.measure import measure
from search.cli.predict import predict
from search.cli.results import compare, export, recheck, report, verify
from search.cli.serve import serve
from search.cli.tune import resume, sweep, tune
from search.errors import SpecError
from servetune.errors import ExitStatus, ServetuneError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Find the TorchServe configuration that sustains the highest request rate "
    "at 100 % success.",
)


def _show_version(is_requested: bool) -> None:
    if is_requested:
        print(metadata.version("servetune"))
        raise typer.Exit


@app.callback()
def servetune(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="print the version"),
    ] = False,
) -> None:
    """Options of every command."""


for _command in (
    *(
        tune,
        sweep,
        resume,
        measure,
        report,
        pareto,
        plan,
        predict,
        compare,
        export,
        verify,
        recheck,
    ),
    *(doctor, up, init, demo, serve, submit, jobs, watch, fetch, dashboard),
):
    app.command()(_command)
app.command("import")(import_deployment)


def main() -> None:
    """Run the command line of this process and exit."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run a command line and return its exit status; errors go to standard error."""
    errors = create_console(stderr=True, soft_wrap=True)
    try:
        with ray_environment(ray_output="--ray-output" in arguments):
            app(arguments)
        return ExitStatus.OK
    except SystemExit as request:
        return int(request.code or ExitStatus.OK)
    except SpecError as error:
        for problem in error.problems:
            errors.print(problem)
        return error.exit_status
    except ServetuneError as error:
        errors.print(f"servetune: {error}")
        if log := getattr(error, "log", ""):
            errors.print(log)
        return error.exit_status
    except KeyboardInterrupt:
        errors.print("servetune: interrupted")
        return ExitStatus.INTERRUPTED


if __name__ == "__main__":
    main()
