"""The table of trials, in report.md and on a terminal. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from loadgen.formatting import format_percent
from loadgen.rate.result import StopReason
from search.errors import first_line
from search.report.formatting import format_lower_bound, format_number
from search.study.diff import flat
from search.study.outcome import Outcome
from search.trial.result import PHASES, RateRecord, TrialResult, TrialState

#: Eleven columns fit into 80 characters only without rules between them.
_TIGHT: dict[str, Any] = {"box": None, "pad_edge": False, "padding": (0, 1, 0, 0)}
#: Settings with a column, and its title.
_SETTING_COLUMNS = (
    ("workers", "workers"),
    ("batch_size", "batch"),
    ("max_batch_delay_ms", "delay"),
    ("netty_threads", "netty"),
    ("netty_client_threads", "client"),
    ("mkl_threads", "mkl"),
)
_SEARCH_PHASES = tuple(phase for phase in PHASES if phase not in ("load", "probes"))
PHASES_TITLE = "/".join(_SEARCH_PHASES)


def trial_table(results: list[TrialResult]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the header and the rows of the table of trials in report.md."""
    has_hosts = len({r.host.name for r in results}) > 1
    header = (
        *("trial", "origin", *(title for _, title in _SETTING_COLUMNS), "other settings", "state"),
        *("sustained rps", "lowest rps not sustained", "width", "capacity rps", "p99 s"),
        *("success by batch ≥", "seconds", PHASES_TITLE),
        *(("host",) if has_hosts else ()),
        "why it ended",
    )
    rows = []
    for result in results:
        rate = result.rate
        bound = rate.success_bound_by_batch
        other = {
            name: value
            for name, value in flat(result.config.to_dict()).items()
            if name not in dict(_SETTING_COLUMNS)
        }
        cause = "" if rate.stop_reason is StopReason.CONVERGED else first_line(result.cause)
        rows.append(
            (
                str(result.number),
                str(result.origin),
                *_setting_cells(result),
                ", ".join(f"{name}={value}" for name, value in other.items()),
                str(result.state),
                format_number(result.sustained_rps),
                format_number(rate.upper_rps),
                format_percent(rate.width) if rate.width else "",
                _capacity_cell(rate),
                format_number(result.p99_s),
                format_lower_bound(bound),
                f"{result.duration_s:.0f}",
                _phase_seconds(result),
                *((result.host.name,) if has_hosts else ()),
                cause,
            )
        )
    return header, rows


def _capacity_cell(rate: RateRecord) -> str:
    """Return the estimate of the capacity with its interval, else the closed loop's throughput."""
    if (estimate := rate.estimate) is None:
        return format_number(rate.capacity_rps)
    low, high = format_number(estimate.low_rps), format_number(estimate.high_rps)
    return f"{format_number(estimate.rps)} ({low} to {high})"


def _setting_cells(result: TrialResult) -> list[str]:
    values = [getattr(result.config, name) for name, _ in _SETTING_COLUMNS]
    return ["–" if value is None else str(value) for value in values]


def _phase_seconds(result: TrialResult) -> str:
    """Return the seconds of each phase; the whole duration if the record has no phases."""
    if not result.timing.phases_s:
        return f"{result.duration_s:.0f}"
    return "/".join(
        f"{result.timing.phases_s[name]:.0f}" if name in result.timing.phases_s else "–"
        for name in _SEARCH_PHASES
    )


def lost_time(results: Sequence[TrialResult]) -> str:
    """Return the share of the time that trials without a rate took; an empty text for none."""
    total_s = sum(r.duration_s for r in results)
    lost_s = sum(r.duration_s for r in results if r.state is not TrialState.COMPLETE)
    if not lost_s:
        return ""
    return f"Pruned and failed trials took {format_percent(lost_s / total_s)} of {total_s:.0f} s."


def terminal_table(outcome: Outcome) -> Table:
    """Return the table for a terminal; it fits 80 columns."""
    table_title = Text(f"Trials of {outcome.run.folder.name}", style="table.title")
    table = Table(title=table_title, title_justify="left", **_TIGHT)
    table.add_column("#", justify="right")
    table.add_column("origin")
    for title in (*(title for _, title in _SETTING_COLUMNS), "rps", "p99 s", "seconds"):
        table.add_column(title, justify="right", no_wrap=True)
    for result in outcome.results:
        rate = format_number(result.sustained_rps) or str(result.state).lower()
        cells = (
            *(str(result.number), str(result.origin), *_setting_cells(result)),
            *(rate, format_number(result.p99_s), _phase_seconds(result)),
        )
        is_chosen = outcome.chosen is not None and result.number == outcome.chosen.number
        table.add_row(*cells, style="bold green" if is_chosen else "")
    return table
