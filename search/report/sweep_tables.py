"""Tables of a sweep: each load at each point, as median and range over the repeats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.table import Column, Table
from rich.text import Text

from search.intervals import Interval, mean_interval
from search.report.formatting import format_number, format_share, markdown_table
from search.study.diff import flat
from search.trial.load_result import LoadResult
from search.trial.result import TrialResult, TrialState

#: The columns of each kind of load. 1: more is better; -1: less is better; 0: neither.
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
#: The main figure of each kind of load.
MAIN_COLUMN = {
    "burst": "completion_s",
    "serial": "completion_s",
    "interval": "achieved_rps",
    "closed": "achieved_rps",
    "sustained": "sustained_rps",
}

#: The settings of a configuration, as pairs of name and value.
Point = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class SweepTable:
    """All loads of one kind: a row for each load and point."""

    kind: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Return the table for report.md."""
        return markdown_table(self.header, self.rows)

    def rich(self) -> Table:
        """Return the table for a terminal."""
        header = [Column(Text(name)) for name in self.header]
        table = Table(*header, title=self.kind, title_justify="left")
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table


def sweep_tables(results: Sequence[TrialResult]) -> list[SweepTable]:
    """Return one table for each kind of load, with points in the order of their settings."""
    points = _repeats_by_point(results)
    setting_names = list(varied_settings(results))
    all_loads = [load for r in results for load in r.loads]
    tables = []
    for kind in dict.fromkeys(load.kind for load in all_loads):
        columns = COLUMNS[kind]
        rows: list[tuple[str, ...]] = []
        for name in dict.fromkeys(load.load for load in all_loads if load.kind == kind):
            rows += _rows(name, columns, points, setting_names)
        header = ("load", *setting_names, *columns, "repeats")
        tables.append(SweepTable(kind, header, tuple(rows)))
    return tables


def _rows(
    load_name: str,
    columns: Mapping[str, int],
    points: Mapping[Point, Sequence[TrialResult]],
    setting_names: Sequence[str],
) -> list[tuple[str, ...]]:
    """Return the rows of one load, one for each point."""
    loads_at = {
        point: [load for r in repeats for load in r.loads if load.load == load_name]
        for point, repeats in points.items()
    }
    measured_in_all = {p: loads for p, loads in loads_at.items() if len(loads) == len(points[p])}
    best = {
        column: _best_point(measured_in_all, column, direction)
        for column, direction in columns.items()
        if direction
    }
    rows = []
    for point, loads in loads_at.items():
        settings = dict(point)
        cells = [
            _cell(column, [getattr(load, column) for load in loads], best.get(column) == point)
            for column in columns
        ]
        values = [settings.get(name, "–") for name in setting_names]
        rows.append((load_name, *values, *cells, _repeats_text(points[point])))
    return rows


def _repeats_by_point(results: Sequence[TrialResult]) -> dict[Point, list[TrialResult]]:
    """Return the repeats of each point, with points in the order of their settings' values."""
    points: dict[Point, list[TrialResult]] = {}
    settings = {r.number: flat(r.config.to_dict()) for r in results}
    for r in sorted(results, key=lambda r: [str(v).rjust(9) for v in settings[r.number].values()]):
        point = tuple((name, str(value)) for name, value in settings[r.number].items())
        points.setdefault(point, []).append(r)
    return points


def varied_settings(results: Sequence[TrialResult]) -> dict[str, list[Any]]:
    """Return each setting that differs, with its value in each result; None if it is not set."""
    configs = [flat(r.config.to_dict()) for r in results]
    names = dict.fromkeys(name for config in configs for name in config)
    settings = {name: [config.get(name) for config in configs] for name in names}
    return {name: values for name, values in settings.items() if len(set(map(str, values))) > 1}


def fixed_settings(results: Sequence[TrialResult]) -> dict[str, Any]:
    """Return each setting that has the same value in all results."""
    first = flat(results[0].config.to_dict()) if results else {}
    varied = varied_settings(results)
    return {name: value for name, value in first.items() if name not in varied}


def _cell(column: str, values: Sequence[float | None], is_best: bool) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "none" if values else ""
    format_value = format_share if column == "success_rate" else format_number
    text = format_value(median(known))
    if len(known) > 1 and min(known) != max(known):
        text += f" ({format_value(min(known))} to {format_value(max(known))})"
    return f"**{text}**" if is_best else text


def _best_point(
    loads_at: Mapping[Point, Sequence[LoadResult]], column: str, direction: int
) -> Point | None:
    """Return the point whose interval is better than that of every comparable point, or None.

    A point is comparable if it was measured more than once and answered every request.

    Args:
        direction: 1 if more is better, -1 if less is.
    """
    intervals: dict[Point, Interval] = {}
    for point, loads in loads_at.items():
        known = [value for load in loads if (value := getattr(load, column))]
        is_complete = len(known) == len(loads) and all(load.success_rate == 1 for load in loads)
        if is_complete and (interval := mean_interval(known)):
            intervals[point] = interval
    if len(intervals) < 2:
        return None
    best = max(intervals, key=lambda point: direction * intervals[point].mean)
    is_separate = all(
        (intervals[best].low > other.high) if direction > 0 else (intervals[best].high < other.low)
        for point, other in intervals.items()
        if point != best
    )
    return best if is_separate else None


def _repeats_text(repeats: Sequence[TrialResult]) -> str:
    failed = [r for r in repeats if r.state is TrialState.FAILED]
    return f"{len(repeats)}, {len(failed)} failed" if failed else str(len(repeats))
