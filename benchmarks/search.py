"""Compare search algorithms by the trials they need: `python -m benchmarks.search`.

Each contestant searches each surface many times. Its share after n trials is the true rate of the
configuration that it would choose, ÷ the best known rate of the surface.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated

#: Each process has one core; set before NumPy is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.contestants import CONTESTANTS, MAX_SEEDS, MAX_TRIALS, OURS
from benchmarks.surfaces import (
    FITTED_MACHINES,
    RECORDED,
    Recorded,
    Simulated,
    Surface,
    draw_machines,
    rank_correlation,
    read_recorded,
)

TABLE_TRIALS = (5, 10, 15, 20, 30, 50)
GOOD_SHARE = 0.95
#: Seeds of the machines on which the sampler was chosen, and of those in the published figures.
CHOICE_MACHINES_SEED, PUBLISHED_MACHINES_SEED = 0, 2
#: First seed of the contestants in the published figures; 0 when the sampler was chosen.
PUBLISHED_FIRST_SEED = 1000

Floats = npt.NDArray[np.float64]
#: By contestant: the share after each trial; shape (runs, trials).
Shares = dict[str, Floats]


def contest(
    surface: Surface,
    names: Sequence[str],
    seeds: int,
    trials: int,
    all_trials: bool = True,
    first_seed: int = 0,
) -> Shares:
    """Search a surface with each contestant.

    Args:
        names: of the contestants.
        seeds: runs of each contestant; slow ones have `MAX_SEEDS`.
        trials: of each run.
        all_trials: whether slow contestants have as many trials as the others; otherwise they
            have `MAX_TRIALS`, and the rest of their shares is NaN.
        first_seed: of consecutive seeds.
    """
    if isinstance(surface, Simulated):
        surface.explore()
    rates = {}
    for name in names:
        limit = trials if all_trials else min(MAX_TRIALS.get(name, trials), trials)
        run_seeds = range(first_seed, first_seed + min(MAX_SEEDS.get(name, seeds), seeds))
        runs = [_search(surface, name, seed, limit) for seed in run_seeds]
        rates[name] = np.pad(runs, ((0, 0), (0, trials - limit)), constant_values=math.nan)
    return {name: runs / surface.optimum_rps for name, runs in rates.items()}


def _search(surface: Surface, name: str, seed: int, trials: int) -> list[float]:
    """Return the true rate of the contestant's choice after each trial."""
    contestant = CONTESTANTS[name](surface.space, seed)
    random = np.random.default_rng(seed)
    chosen_rps = 0.0
    rates = []
    for _ in range(trials):
        if (point := contestant.ask()) is not None:
            contestant.tell(surface.measure(point, random), surface.failure(point))
            choice = contestant.choice()
            chosen_rps = surface.true_rps(choice) if choice is not None else 0.0
        rates.append(chosen_rps)
    return rates


def trials_to(shares: Floats, share: float = GOOD_SHARE) -> Floats:
    """Return each run's first trial with at least this share; infinite if there is none."""
    is_good = shares >= share
    return np.where(is_good.any(axis=1), is_good.argmax(axis=1) + 1.0, math.inf)


def shares_table(title: str, shares: Mapping[str, Floats]) -> Table:
    """Return a table with a row for each contestant."""
    table = Table("contestant", title=title, title_justify="left")
    numbers = [n for n in TABLE_TRIALS if n <= next(iter(shares.values())).shape[1]]
    for n in numbers:
        table.add_column(f"{n} trials", justify="right")
    table.add_column("trials to 95 %", justify="right")
    for name, runs in shares.items():
        cells = []
        for n in numbers:
            after_n = runs[:, n - 1]
            if np.isnan(after_n).any():
                cells.append("–")
                continue
            cells.append(
                f"{after_n.mean():.2f} {np.median(after_n):.2f} {np.quantile(after_n, 0.1):.2f} "
                f"{(after_n >= GOOD_SHARE).mean():4.0%}"
            )
        needed, limit = np.median(trials_to(runs)), (~np.isnan(runs)).all(axis=0).sum()
        table.add_row(name, *cells, f"{needed:.0f}" if needed < math.inf else f"over {limit}")
    slow = ", ".join(f"{name} up to {limit} trials" for name, limit in MAX_TRIALS.items())
    table.caption = (
        "mean, median, 10th percentile of the share; runs at 95 % or more "
        f"(without --full: {slow}, on one machine of every second kind)"
    )
    return table


def _timed_contest(
    arguments: tuple[Surface, Sequence[str], int, int, bool, int],
) -> tuple[str, Shares, float]:
    """Return the surface's name, its shares, and the duration of the contest in seconds."""
    start_s = time.perf_counter()
    return arguments[0].name, contest(*arguments), time.perf_counter() - start_s


def main(
    surface: Annotated[Path | None, typer.Option(help="CSV file of a recorded surface.")] = None,
    full: Annotated[bool, typer.Option(help="Draw twice as many machines of each kind.")] = False,
    seeds: Annotated[int, typer.Option(help="Runs of each contestant on each surface.")] = 20,
    trials: Annotated[int, typer.Option(help="Trials of each run.")] = max(TABLE_TRIALS),
    of: Annotated[list[str] | None, typer.Option(help="Only these contestants.")] = None,
    choosing: Annotated[
        bool, typer.Option(help="Use the machines on which the sampler was chosen.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File for all shares, as JSON.")
    ] = None,
) -> None:
    """Compare search algorithms by the trials they need."""
    console = Console(width=None if sys.stdout.isatty() else 180)
    names = of or list(CONTESTANTS)
    if unknown := [name for name in names if name not in CONTESTANTS]:
        known = ", ".join(CONTESTANTS)
        raise typer.BadParameter(f"unknown contestant {unknown[0]!r}; choose from {known}")
    try:
        # The recorded surfaces were known when the sampler was chosen.
        paths = [surface] if surface else [] if choosing else sorted(RECORDED.glob("*.csv"))
        surfaces: list[Recorded | Simulated] = [read_recorded(path) for path in paths]
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    machines_per_kind = 6 if full else 3
    if not surface:
        seed = CHOICE_MACHINES_SEED if choosing else PUBLISHED_MACHINES_SEED
        surfaces += draw_machines(seed, machines_per_kind)
    shares_of: dict[str, Shares] = {}
    with ProcessPoolExecutor() as pool:
        contests = []
        for number, searched in enumerate(surfaces):
            # Slow ones: on the first recorded surface, and a machine of every second kind.
            runs_slow = number in (0, *range(len(paths), len(surfaces), 2 * machines_per_kind))
            selected = [n for n in names if full or runs_slow or n not in MAX_TRIALS]
            first_seed = 0 if choosing else PUBLISHED_FIRST_SEED
            contests.append((searched, selected, seeds, trials, full, first_seed))
        for name, shares, seconds in pool.map(_timed_contest, contests):
            shares_of[name] = shares
            console.print(f"{name}: {seconds:.0f} s", style="dim")
    for searched in surfaces:
        if isinstance(searched, Recorded) and (machine := FITTED_MACHINES.get(searched.name)):
            correlation = rank_correlation(searched, machine)
            console.print(
                f"{searched.name}: rank correlation of the simulated machine with the recording, "
                f"Spearman {correlation:.2f}",
                highlight=False,
            )
    recorded = [s.name for s in surfaces if not isinstance(s, Simulated)]
    simulated = [s.name for s in surfaces if isinstance(s, Simulated)]
    for title, group in (("Recorded surfaces", recorded), ("Simulated machines", simulated)):
        if group:
            table = shares_table(f"{title}: {len(group)}", _merge(shares_of, group, names))
            console.print(table)
    if json_file:
        data = {
            surface_name: {name: runs.tolist() for name, runs in shares.items()}
            for surface_name, shares in shares_of.items()
        }
        json_file.write_text(json.dumps(data))


def _merge(shares_of: Mapping[str, Shares], group: Sequence[str], names: Sequence[str]) -> Shares:
    """Return the runs of each contestant on a group of surfaces.

    A slow contestant that searched only some of the surfaces is followed by servetune on these.
    """
    merged = {
        name: np.concatenate(runs)
        for name in names
        if (runs := [shares_of[g][name] for g in group if name in shares_of[g]])
    }
    for slow in MAX_TRIALS:
        ours = [shares_of[g][OURS] for g in group if {slow, OURS} <= shares_of[g].keys()]
        if 0 < len(ours) < len(group):
            merged[f"{OURS} on {slow}'s"] = np.concatenate(ours)
    return merged


if __name__ == "__main__":
    typer.run(main)
