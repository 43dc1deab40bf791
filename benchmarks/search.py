"""Compare search algorithms by the seconds they need: `python -m benchmarks.search`.

Each contestant searches each surface many times. The share of a run at a time is the true rate of
the configuration that it would choose then, ÷ the best known rate in the ranges of the space. The
seconds of a trial depend on how it ends; see `contest.COSTS`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from loadgen.formatting import format_percent

#: Each process has one core; set before NumPy is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.contest import COSTS, SearchRun, TrialCosts, good_share, search_surface
from benchmarks.contestants import CONTESTANTS, OPTIONAL, OURS, SLOW
from benchmarks.kinds import CHOICE_KINDS, KINDS
from benchmarks.prediction import PredictionQuality, prediction_quality
from benchmarks.surfaces import (
    RECORDED,
    Recorded,
    Simulated,
    draw_machines,
    draw_other_kinds,
    read_recorded,
)

TABLE_SECONDS, TABLE_TRIALS = (120, 200, 300, 450, 600), (10, 20)
GOOD_SHARE = 0.95
#: Seeds of the machines on which the sampler was developed, and of those in the published figures.
CHOICE_MACHINES_SEED, PUBLISHED_MACHINES_SEED = 0, 2
#: First seed of the contestants in the published figures; 0 in development.
PUBLISHED_FIRST_SEED = 1000
#: Random configurations of each machine whose rates are predicted, and the trials before that.
PREDICTED_POINTS, PREDICTION_STARTS = 500, 3

OWN, CHOICE_HALF, REPORT_HALF, ALL_OTHERS, RECORDINGS = (
    "own model",
    "other kinds, seen in development",
    "other kinds, not seen",
    "other kinds, all",
    "recorded",
)


@dataclass(frozen=True)
class Task:
    """Searches of one surface by one contestant.

    Attributes:
        group: set of surfaces in the tables.
        kind: of the server within the set.
    """

    group: str
    kind: str
    surface: Recorded | Simulated
    contestant: str
    seeds: range
    costs: TrialCosts
    limit_s: float

    def run(self) -> list[SearchRun]:
        """Return the runs."""
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
        return [
            search_surface(self.surface, self.contestant, seed, self.costs, self.limit_s)
            for seed in self.seeds
        ]


def _run(task: Task) -> tuple[Task, list[SearchRun], float]:
    start_s = time.process_time()
    return task, task.run(), time.process_time() - start_s


def _explored(surface: Recorded | Simulated) -> Recorded | Simulated:
    """Return the surface with its optimum and the rates that led to it."""
    if isinstance(surface, Simulated):
        surface.explore()
    return surface


def _predict(surface: Simulated) -> PredictionQuality:
    return prediction_quality(surface, 0, PREDICTION_STARTS, PREDICTED_POINTS)


def _kind_of(surface: Recorded | Simulated) -> str:
    """Return the kind of a simulated machine, whose name is `KIND SEED.NUMBER, N cores`."""
    return surface.name.rsplit(" ", 3)[0] if isinstance(surface, Simulated) else surface.name


def surfaces_of(choosing: bool, per_kind: int) -> dict[str, list[Recorded | Simulated]]:
    """Return the surfaces by set.

    Args:
        choosing: return those of the development instead of those of the published figures.
        per_kind: machines of each kind; of other kinds, for each number of cores.
    """
    seed = CHOICE_MACHINES_SEED if choosing else PUBLISHED_MACHINES_SEED
    half = max(per_kind // 2, 1)
    found: dict[str, list[Recorded | Simulated]] = {
        OWN: [*draw_machines(seed, per_kind)],
        CHOICE_HALF: [*draw_other_kinds(seed, half, CHOICE_KINDS)],
    }
    if not choosing:
        unseen = [kind for kind in KINDS if kind not in CHOICE_KINDS]
        found[REPORT_HALF] = [*draw_other_kinds(seed, half, unseen)]
        found[RECORDINGS] = [read_recorded(path) for path in sorted(RECORDED.glob("*.csv"))]
    return found


def tasks_of(
    surfaces: Mapping[str, Sequence[Recorded | Simulated]],
    names: Sequence[str],
    seeds: int,
    first_seed: int,
    costs: TrialCosts,
    limit_s: float,
) -> list[Task]:
    """Return the searches; slow contestants search every third surface, once."""
    tasks = []
    for name in names:
        for group, members in surfaces.items():
            for number, surface in enumerate(members):
                if name in SLOW and number % 3:
                    continue
                runs = range(first_seed, first_seed + (1 if name in SLOW else seeds))
                kind = _kind_of(surface)
                tasks.append(Task(group, kind, surface, name, runs, costs, limit_s))
    return tasks


def main(
    surface: Annotated[
        Path | None, typer.Option(help="CSV file of a recorded surface; search only this one.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each contestant on each surface.")] = 4,
    per_kind: Annotated[int, typer.Option(min=1, help="Machines of each kind.")] = 4,
    seconds: Annotated[
        float, typer.Option(min=TABLE_SECONDS[0], help="Simulated duration of a run.")
    ] = 600,
    costs: Annotated[
        str, typer.Option(help=f"Duration of trials: {' or '.join(COSTS)}.")
    ] = "screening",
    of: Annotated[list[str] | None, typer.Option(help="Only these contestants.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only these sets of surfaces.")] = None,
    choosing: Annotated[
        bool, typer.Option(help="Use the machines on which the sampler was developed.")
    ] = False,
    single: Annotated[
        bool,
        typer.Option(
            help="Every trial reports the duration of a single request; otherwise only one with a "
            "batch size of 1, as real trials do."
        ),
    ] = True,
    predictions: Annotated[bool, typer.Option(help="Also check the predicted rates.")] = True,
    processes: Annotated[int | None, typer.Option(help="Processes; one for each core.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File for all runs, as JSON.")
    ] = None,
) -> None:
    """Compare search algorithms by the seconds they need."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    names = of or [name for name in CONTESTANTS if name not in OPTIONAL]
    if unknown := [name for name in names if name not in CONTESTANTS]:
        known = ", ".join(CONTESTANTS)
        raise typer.BadParameter(f"unknown contestant {unknown[0]!r}; choose from {known}")
    if costs not in COSTS:
        raise typer.BadParameter(f"unknown costs {costs!r}; choose from {', '.join(COSTS)}")
    try:
        recorded: dict[str, list[Recorded | Simulated]] = {}
        if surface:
            recorded[RECORDINGS] = [read_recorded(surface)]
        surfaces = recorded or surfaces_of(choosing, per_kind)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    if unknown := [group for group in only or () if group not in surfaces]:
        known = ", ".join(surfaces)
        raise typer.BadParameter(f"unknown set {unknown[0]!r}; choose from {known}")
    surfaces = {group: found for group, found in surfaces.items() if not only or group in only}
    for simulated in (s for found in surfaces.values() for s in found if isinstance(s, Simulated)):
        simulated.reports_single = single
    first_seed = 0 if choosing else PUBLISHED_FIRST_SEED
    runs: dict[str, dict[str, dict[str, list[SearchRun]]]] = {}
    cpu_s: dict[str, float] = {}
    with ProcessPoolExecutor(processes) as pool:
        surfaces = {group: list(pool.map(_explored, found)) for group, found in surfaces.items()}
        tasks = tasks_of(surfaces, names, seeds, first_seed, COSTS[costs], seconds)
        for task, found, task_s in pool.map(_run, tasks):
            by_kind = runs.setdefault(task.group, {}).setdefault(task.contestant, {})
            by_kind.setdefault(task.kind, []).extend(found)
            cpu_s[task.contestant] = cpu_s.get(task.contestant, 0.0) + task_s
            if json_file:  # A long benchmark keeps what it has if it is stopped.
                json_file.write_text(json.dumps(_plain(runs)))
        machines = [s for s in surfaces.get(OWN, ()) if isinstance(s, Simulated)]
        qualities = list(pool.map(_predict, machines)) if predictions else []
    console.print(f"seconds of a trial: {COSTS[costs]}", highlight=False)
    if {CHOICE_HALF, REPORT_HALF} <= runs.keys():
        runs[ALL_OTHERS] = {
            name: {**runs[CHOICE_HALF].get(name, {}), **runs[REPORT_HALF].get(name, {})}
            for name in names
        }
    for group, by_contestant in runs.items():
        console.print(shares_table(group, by_contestant, seconds))
        if OURS in by_contestant and len(by_contestant[OURS]) > 1:
            console.print(kinds_table(group, by_contestant[OURS], seconds))
    if qualities:
        console.print(prediction_text(qualities), highlight=False)
    used = ", ".join(f"{name} {total:.0f}" for name, total in cpu_s.items())
    console.print(f"CPU seconds: {used}", style="dim")


def shares_table(
    group: str, by_contestant: Mapping[str, Mapping[str, Sequence[SearchRun]]], limit_s: float
) -> Table:
    """Return a table of a set of surfaces with a row for each contestant."""
    table = Table("contestant", "runs", title=f"{group}: runs at ≥ 95 %", title_justify="left")
    times = [s for s in TABLE_SECONDS if s <= limit_s]
    for title in (
        *(f"{s} s" for s in times),
        *(f"{n} trials" for n in TABLE_TRIALS),
        f"mean share, {times[-1]} s",
        "median s to 95 %",
    ):
        table.add_column(title, justify="right")
    for name, by_kind in by_contestant.items():
        found = [run for kind_runs in by_kind.values() for run in kind_runs]
        if not found:
            continue
        reached = float(np.median([run.seconds_to(GOOD_SHARE) for run in found]))
        table.add_row(
            name,
            str(len(found)),
            *(_percentage([run.share_at(s) >= GOOD_SHARE for run in found]) for s in times),
            *(
                _percentage([run.share_after(n) >= GOOD_SHARE for run in found])
                if all(len(run.shares) >= n for run in found)
                else "–"
                for n in TABLE_TRIALS
            ),
            f"{np.mean([run.share_at(times[-1]) for run in found]):.3f}",
            f"{reached:.0f}" if math.isfinite(reached) else f"over {limit_s:.0f}",
        )
    table.caption = "± is the standard error"
    return table


def kinds_table(group: str, by_kind: Mapping[str, Sequence[SearchRun]], limit_s: float) -> Table:
    """Return a table of servetune's runs by kind of server, with the end of the search by value."""
    table = Table("kind", "runs", title=f"{OURS} on {group}", title_justify="left")
    times = [s for s in TABLE_SECONDS if s <= limit_s]
    for title in (*(f"{s} s" for s in times), "ended by value", "median end, s", "good at end"):
        table.add_column(title, justify="right")
    for kind, found in by_kind.items():
        ended = [run for run in found if math.isfinite(run.stop_s)]
        good = [run.share_at(run.stop_s) >= GOOD_SHARE for run in ended]
        table.add_row(
            kind,
            str(len(found)),
            *(format_percent(good_share(found, s, GOOD_SHARE)) for s in times),
            format_percent(len(ended) / len(found)),
            f"{np.median([run.stop_s for run in ended]):.0f}" if ended else "–",
            format_percent(sum(good) / len(good)) if good else "–",
        )
    return table


def prediction_text(qualities: Iterable[PredictionQuality]) -> str:
    """Return the accuracy of the predicted rates in a sentence."""
    qualities = list(qualities)
    errors = [error for quality in qualities for error in quality.errors]
    covered = [inside for quality in qualities for inside in quality.covered]
    widths = [width for quality in qualities for width in quality.widths]
    if not errors:
        return "Predictions: no machine served."
    return (
        f"Predictions after {PREDICTION_STARTS} starts, {len(errors)} configurations of "
        f"{len(qualities)} machines of the own model: median error "
        f"{format_percent(float(np.median(errors)), 1)}, "
        f"{format_percent(float(np.mean(covered)))} within the 90 % interval, "
        f"whose median high ÷ low is {np.median(widths):.1f}."
    )


def _percentage(is_good: Sequence[bool]) -> str:
    share = float(np.mean(is_good))
    return (
        f"{format_percent(share)} ± {format_percent(math.sqrt(share * (1 - share) / len(is_good)))}"
    )


def _plain(
    runs: Mapping[str, Mapping[str, Mapping[str, Sequence[SearchRun]]]],
) -> dict[str, dict[str, dict[str, list[dict[str, object]]]]]:
    return {
        group: {
            name: {
                kind: [
                    {"ends_s": r.ends_s, "shares": r.shares, "stop_s": min(r.stop_s, 1e9)}
                    for r in found
                ]
                for kind, found in by_kind.items()
            }
            for name, by_kind in by_contestant.items()
        }
        for group, by_contestant in runs.items()
    }


if __name__ == "__main__":
    typer.run(main)
