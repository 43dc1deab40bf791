"""Which search needs the fewest trials: `python -m benchmarks.search`.

Every contestant searches every surface many times. What counts is the true rate of what it would
choose after so many trials, ÷ the best that anybody found on that surface.
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

#: Each process has a core: libraries that take more threads would only disturb the other's.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.contestants import CONTESTANTS, OURS, SEEDS, SLOW
from benchmarks.surfaces import (
    FITTED,
    RECORDED,
    Recorded,
    Simulated,
    Surface,
    likeness,
    machines,
    read_recorded,
)

AT = (5, 10, 15, 20, 30, 50)
ENOUGH = 0.95
#: What the defaults were chosen on, and what the printed figures use.
CHOSEN_ON, PRINTED_ON = 0, 2
#: The seeds of the printed figures begin here, those that the defaults were chosen with at 0.
PRINTED_SEEDS = 1000

Floats = npt.NDArray[np.float64]
#: By contestant: the true rate of its choice, ÷ the optimum; shape (runs, trials).
Shares = dict[str, Floats]


def contest(
    surface: Surface,
    names: Sequence[str],
    seeds: int,
    trials: int,
    whole: bool = True,
    first_seed: int = 0,
) -> Shares:
    """Let them all search one surface.

    Args:
        whole: the slow ones take as many trials as the others; else what they lack is NaN.
        first_seed: of so many consecutive ones as there are seeds, 5 or fewer for the slow ones.
    """
    if isinstance(surface, Simulated):
        surface.explore()
    chosen = {}
    for name in names:
        most = trials if whole else min(SLOW.get(name, trials), trials)
        drawn = range(first_seed, first_seed + min(SEEDS.get(name, seeds), seeds))
        rates = [_search(surface, name, seed, most) for seed in drawn]
        chosen[name] = np.pad(rates, ((0, 0), (0, trials - most)), constant_values=math.nan)
    return {name: rates / surface.optimum_rps for name, rates in chosen.items()}


def _search(surface: Surface, name: str, seed: int, trials: int) -> list[float]:
    contestant = CONTESTANTS[name](surface.space, seed)
    chance = np.random.default_rng(seed)
    chosen = 0.0
    rates = []
    for _ in range(trials):
        if (point := contestant.ask()) is not None:
            contestant.tell(surface.measure(point, chance), surface.failure(point))
            choice = contestant.choice()
            chosen = surface.true_rps(choice) if choice is not None else 0.0
        rates.append(chosen)
    return rates


def trials_to(shares: Floats, enough: float = ENOUGH) -> Floats:
    """By run: the first trial after which the choice is good enough; infinite where none is."""
    good = shares >= enough
    return np.where(good.any(axis=1), good.argmax(axis=1) + 1.0, math.inf)


def table(title: str, shares: Mapping[str, Floats]) -> Table:
    """All runs of each contestant."""
    shown = Table("contestant", title=title, title_justify="left")
    at = [n for n in AT if n <= next(iter(shares.values())).shape[1]]
    for n in at:
        shown.add_column(f"{n} trials", justify="right")
    shown.add_column("trials to 95 %", justify="right")
    for name, each in shares.items():
        cells = []
        for n in at:
            now = each[:, n - 1]
            if np.isnan(now).any():
                cells.append("–")
                continue
            cells.append(
                f"{now.mean():.2f} {np.median(now):.2f} {np.quantile(now, 0.1):.2f} "
                f"{(now >= ENOUGH).mean():4.0%}"
            )
        needed, most = np.median(trials_to(each)), (~np.isnan(each)).all(axis=0).sum()
        shown.add_row(name, *cells, f"{needed:.0f}" if needed < math.inf else f"over {most}")
    slow = ", ".join(f"{name} up to {most} trials" for name, most in SLOW.items())
    shown.caption = (
        "mean, median, 10th percentile of the share; runs at 95 % or more "
        f"(without --full: {slow}, on one machine of every second kind)"
    )
    return shown


def _one(
    arguments: tuple[Surface, Sequence[str], int, int, bool, int],
) -> tuple[str, Shares, float]:
    begun = time.perf_counter()
    return arguments[0].name, contest(*arguments), time.perf_counter() - begun


def main(
    surface: Annotated[Path | None, typer.Option(help="A recorded surface, CSV.")] = None,
    full: Annotated[bool, typer.Option(help="Twice as many machines of each kind.")] = False,
    seeds: Annotated[int, typer.Option(help="Runs of each contestant on each surface.")] = 20,
    trials: Annotated[int, typer.Option(help="Of each run.")] = max(AT),
    of: Annotated[list[str] | None, typer.Option(help="Only these contestants.")] = None,
    choosing: Annotated[
        bool, typer.Option(help="The machines that the default was chosen on.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where all is written.")] = None,
) -> None:
    """Compare searches by the trials that they need."""
    console = Console(width=None if sys.stdout.isatty() else 180)
    names = of or list(CONTESTANTS)
    if unknown := [name for name in names if name not in CONTESTANTS]:
        raise typer.BadParameter(f"no contestant {unknown[0]!r}; known are {list(CONTESTANTS)}")
    try:
        # The recorded surfaces were known all along: they belong to neither side.
        paths = [surface] if surface else [] if choosing else sorted(RECORDED.glob("*.csv"))
        surfaces: list[Recorded | Simulated] = [read_recorded(path) for path in paths]
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    of_each = 6 if full else 3
    if not surface:
        surfaces += machines(CHOSEN_ON if choosing else PRINTED_ON, of_each)
    every: dict[str, Shares] = {}
    with ProcessPoolExecutor() as pool:
        work = []
        for number, each in enumerate(surfaces):
            # The slow ones: the first recorded surface, the first machine of every second kind.
            is_one = number in (0, *range(len(paths), len(surfaces), 2 * of_each))
            here = [name for name in names if full or is_one or name not in SLOW]
            work.append((each, here, seeds, trials, full, 0 if choosing else PRINTED_SEEDS))
        for name, shares, seconds in pool.map(_one, work):
            every[name] = shares
            console.print(f"{name}: {seconds:.0f} s", style="dim")
    for each in surfaces:
        if isinstance(each, Recorded) and (machine := FITTED.get(each.name)):
            told = f"{each.name}: the simulated machine ranks configurations as it was recorded"
            console.print(f"{told}, Spearman {likeness(each, machine):.2f}", highlight=False)
    recorded = [s.name for s in surfaces if not isinstance(s, Simulated)]
    simulated = [s.name for s in surfaces if isinstance(s, Simulated)]
    for title, group in (("Recorded surfaces", recorded), ("Simulated machines", simulated)):
        if group:
            together = {
                n: np.concatenate(there)
                for n in names
                if (there := [every[g][n] for g in group if n in every[g]])
            }
            for slow in SLOW:
                there = [every[g][OURS] for g in group if {slow, OURS} <= every[g].keys()]
                if 0 < len(there) < len(group):
                    together[f"{OURS} on {slow}'s"] = np.concatenate(there)
            console.print(table(f"{title}: {len(group)}", together))
    if json_file:
        data = {g: {n: shares.tolist() for n, shares in each.items()} for g, each in every.items()}
        json_file.write_text(json.dumps(data))


if __name__ == "__main__":
    typer.run(main)
