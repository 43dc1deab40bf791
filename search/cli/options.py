"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SpecArgument = Annotated[Path, typer.Argument(metavar="SPEC", help="the study's YAML file")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="a run's folder")]
PlainOption = Annotated[bool, typer.Option("--plain", help="lines instead of a live panel")]
RayOption = Annotated[bool, typer.Option("--ray-output", help="let Ray print what it prints")]
TrialsOption = Annotated[int | None, typer.Option(min=1, help="instead of search.trials")]
BudgetOption = Annotated[
    float | None,
    typer.Option(min=1, help="instead of search.time_budget_s: for all, from the run's beginning"),
]
ConfirmOption = Annotated[
    int | None,
    typer.Option(min=2, max=50, help="rounds of the best against what is in use, at the end"),
]
ClusterOption = Annotated[
    str | None,
    typer.Option("--cluster", help="instead of cluster.address: a Ray cluster of this host's"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON alone on standard output")]
