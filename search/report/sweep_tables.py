"""A sweep's tables: every load at every point, the median with its spread over the repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.table import Table

from search.report.formatting import markdown, number, share
from search.study.diff import flat
from search.study.intervals import Interval, mean_interval
from search.trial.load_result import LoadResult
from search.trial.result import TrialResult, TrialState

#: By kind of load: its columns, and whether more or less is better, where one of both is.
COLUMNS: dict[str, dict[str, int]] = {
    "burst": {
        "completion_s": -1,
        "mean_latency_s": -1,
        "max_minus_mean_s": 0,
        "p99_s": -1,
        "achieved_rps": 1,
        "answered": 0,
        "success_rate": 0,
    },
    "interval": {
        "requested_rps": 0,
        "scheduled": 0,
        "sent": 0,
        "answered": 0,
        "completion_s": 0,
        "achieved_rps": 1,
        "mean_latency_s": -1,
        "max_minus_mean_s": 0,
        "p50_s": -1,
        "p95_s": -1,
        "p99_s": -1,
        "success_rate": 0,
    },
    "closed": {
        "achieved_rps": 1,
        "mean_latency_s": -1,
        "p50_s": -1,
        "p95_s": -1,
        "p99_s": -1,
        "success_rate": 0,
    },
    "sustained": {
        "sustained_rps": 1,
        "upper_rps": 0,
        "p99_s": 0,
        "queue_s": 0,
        "inference_s": 0,
        "mean_batch_fill": 0,
    },
}
COLUMNS["serial"] = COLUMNS["burst"]
#: By kind of load: the figure that says most of it.
SHOWN = {
    "burst": "completion_s",
    "serial": "completion_s",
    "interval": "achieved_rps",
    "closed": "achieved_rps",
    "sustained": "sustained_rps",
}


@dataclass(frozen=True)
class SweepTable:
    """All loads of one kind: a row for each load and point."""

    kind: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """The table for report.md."""
        return markdown(self.header, self.rows)

    def rich(self) -> Table:
        """The table for a terminal."""
        table = Table(*self.header, title=self.kind, title_justify="left")
        for row in self.rows:
            table.add_row(*row)
        return table


def tables(results: Sequence[TrialResult]) -> list[SweepTable]:
    """One table for each kind of load, points in the order of their settings."""
    points = _points(results)
    names = list(varied_settings(results))
    seen = [load for r in results for load in r.loads]
    found = []
    for kind in dict.fromkeys(load.kind for load in seen):
        columns = COLUMNS[kind]
        rows = []
        for name in dict.fromkeys(load.load for load in seen if load.kind == kind):
            there = {
                point: [load for r in repeats for load in r.loads if load.load == name]
                for point, repeats in points.items()
            }
            whole = {
                point: loads for point, loads in there.items() if len(loads) == len(points[point])
            }
            best = {column: _best(whole, column, way) for column, way in columns.items() if way}
            for point, loads in there.items():
                settings = dict(point)
                cells = [
                    _cell(
                        column, [getattr(load, column) for load in loads], best.get(column) == point
                    )
                    for column in columns
                ]
                lost = _lost(points[point])
                rows.append((name, *(settings.get(n, "–") for n in names), *cells, lost))
        found.append(SweepTable(kind, ("load", *names, *columns, "repeats"), tuple(rows)))
    return found


Point = tuple[tuple[str, str], ...]


def _points(results: Sequence[TrialResult]) -> dict[Point, list[TrialResult]]:
    """The repeats of each point; points in the order of their settings' values."""
    points: dict[Point, list[TrialResult]] = {}
    settings = {r.number: flat(r.config.to_dict()) for r in results}
    for r in sorted(results, key=lambda r: [str(v).rjust(9) for v in settings[r.number].values()]):
        key = tuple((name, str(value)) for name, value in settings[r.number].items())
        points.setdefault(key, []).append(r)
    return points


def varied_settings(results: Sequence[TrialResult]) -> dict[str, list[Any]]:
    """Each setting that differs between these, with its values; None where it is not set."""
    rows = [flat(r.config.to_dict()) for r in results]
    names = dict.fromkeys(name for row in rows for name in row)
    found = {name: [row.get(name) for row in rows] for name in names}
    return {name: values for name, values in found.items() if len(set(map(str, values))) > 1}


def held_settings(results: Sequence[TrialResult]) -> dict[str, Any]:
    """Each setting that is set and the same in all these, with its value."""
    first = flat(results[0].config.to_dict()) if results else {}
    varied = varied_settings(results)
    return {name: value for name, value in first.items() if name not in varied}


def _cell(column: str, values: Sequence[float | None], is_best: bool) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "none" if values else ""
    write = share if column == "success_rate" else number
    text = write(median(known))
    if len(known) > 1 and min(known) != max(known):
        text += f" ({write(min(known))} to {write(max(known))})"
    return f"**{text}**" if is_best else text


def _best(there: dict[Point, list[LoadResult]], column: str, way: int) -> Point | None:
    """The point that is beyond doubt better than all that can be compared; None where none is."""
    intervals: dict[Point, Interval | None] = {}
    for point, loads in there.items():
        known = [value for load in loads if (value := getattr(load, column))]
        whole = len(known) == len(loads) and all(load.success_rate == 1 for load in loads)
        intervals[point] = mean_interval(known) if whole else None
    sure = {point: interval for point, interval in intervals.items() if interval}
    if len(sure) < 2:
        return None
    best = max(sure, key=lambda point: way * sure[point].mean)
    # A point where something failed, or that was measured once, is no rival to be compared.
    apart = all(
        (sure[best].low > other.high) if way > 0 else (sure[best].high < other.low)
        for point, other in sure.items()
        if point != best
    )
    return best if apart else None


def _lost(repeats: Sequence[TrialResult]) -> str:
    failed = [r for r in repeats if r.state is TrialState.FAILED]
    return f"{len(repeats)}, {len(failed)} failed" if failed else str(len(repeats))
