"""The commands pareto and plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from search.cli.console import create_console
from search.cli.options import JsonOption, PickOption, RunArgument
from search.errors import RunError
from search.headroom import DEFAULT_HEADROOM, MAX_HEADROOM

if TYPE_CHECKING:
    from search.study.outcome import Outcome


def pareto(run: RunArgument, as_json: JsonOption = False) -> None:
    """Print rate, p99 latency, memory and workers of a run's configurations.

    Those that the run did not measure are predicted from its trials. Marked are those of the Pareto
    front, the recommended one, and the knee: the point beyond which latency rises fastest
    with the rate.
    """
    from search.answer.pareto import pareto_front, pareto_points
    from search.answer.predicted import predicted_points
    from search.report.answer_text import POINT_HEADER, front_note, point_row, predicted_note
    from search.report.formatting import format_settings

    outcome = _outcome(run)
    points, predicted = pareto_points(outcome), predicted_points(outcome)
    front = pareto_front(points)
    if as_json:
        rows = [{**p.to_dict(), "is_on_front": p in front} for p in points]
        rows += [{**p.to_dict(), "is_on_front": False} for p in predicted.points]
        print(json.dumps(rows))
        return
    promising = [p for p in pareto_front([*points, *predicted.points]) if not p.is_measured]
    console = create_console()
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in POINT_HEADER:
        # On a narrow terminal, the latencies take two lines.
        table.add_column(name, no_wrap="p99" not in name)
    shown = sorted([*points, *predicted.points], key=lambda p: p.sustained_rps)
    for point in shown:
        table.add_row(*point_row(point, point in front or point in promising))
    console.print(table)
    console.print(front_note(points), soft_wrap=True)
    if note := predicted_note(predicted):
        console.print(note, soft_wrap=True)
    console.print()
    for point in [p for p in shown if p in front or p in promising]:
        console.print(f"{point.name}: {format_settings(point.config)}", soft_wrap=True)


def plan(
    run: RunArgument,
    rps: Annotated[
        float, typer.Option(min=0.001, help="load of all replicas, requests per second")
    ],
    p99: Annotated[
        float | None, typer.Option(min=0.0001, help="limit on the p99 latency, seconds")
    ] = None,
    headroom: Annotated[
        float, typer.Option(min=0, max=MAX_HEADROOM, help="share of a replica's rate to keep free")
    ] = DEFAULT_HEADROOM,
    price_per_hour: Annotated[
        float | None, typer.Option(min=0, help="price of a replica per hour, in any currency")
    ] = None,
    pick: PickOption = None,
    as_json: JsonOption = False,
) -> None:
    """Plan replicas, latency, memory, cost and autoscaling for a load."""
    from search.answer.pareto import pareto_points
    from search.answer.picking import pick_or_recommended
    from search.answer.plan import capacity_plan
    from search.report.answer_text import plan_rows
    from search.report.formatting import format_settings

    point = pick_or_recommended(pareto_points(_outcome(run)), pick)
    planned = capacity_plan(point, rps, p99, headroom, price_per_hour)
    if as_json:
        print(json.dumps(planned.to_dict()))
        return
    console = create_console()
    console.print(f"{point.name}: {format_settings(point.config)}", soft_wrap=True)
    table = Table(box=None)
    for name in ("", f"for {rps:g} rps", "95 % interval"):
        table.add_column(name, overflow="fold")
    for row in plan_rows(planned):
        table.add_row(*row)
    console.print(table)
    for note in planned.notes:
        console.print(f"note: {note}", soft_wrap=True)


def _outcome(folder: Path) -> Outcome:
    """Return the outcome of a run of which a trial sustained a rate."""
    from search.study.reading import read_outcome
    from search.study.run_folder import Run

    outcome = read_outcome(Run.open(folder))
    if outcome.spec.sweep is not None:
        raise RunError(f"{folder} is a sweep: it has no recommended configuration")
    if not any(result.sustained_rps for result in outcome.results):
        raise RunError(f"no trial of {folder} sustained any rate")
    return outcome
