"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SpecArgument = Annotated[
    Path, typer.Argument(metavar="SPEC", help="path of the specification, a YAML file")
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="path of the run's folder")]
PlainOption = Annotated[
    bool, typer.Option("--plain", help="print plain lines instead of a live panel")
]
RayOption = Annotated[bool, typer.Option("--ray-output", help="also print the output of Ray")]
TrialsOption = Annotated[
    int | None, typer.Option(min=1, help="maximum number of trials; overrides search.trials")
]
BudgetOption = Annotated[
    float | None,
    typer.Option(
        min=1,
        help="maximum time of the run in seconds, including the confirmation and earlier starts of "
        "the run; overrides search.time_budget_s",
    ),
]
ConfirmOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=100,
        help="maximum number of confirmation rounds, 0 for no confirmation; overrides "
        "confirm.rounds",
    ),
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        help="address of a Ray cluster that this host belongs to; overrides cluster.address",
    ),
]
PickOption = Annotated[
    str | None,
    typer.Option(
        metavar="CHOICE",
        help="configuration instead of the recommended one: max (highest rate), knee (after it, "
        "more rate costs the most latency), p99=SECONDS (highest rate within this limit) or "
        "trial=NUMBER",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="print only JSON on standard output")]
