"""The report of a run: the tables on a terminal, report.md, report.html and trials.csv."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loadgen.percent import format_percent
from loadgen.rate.result import StopReason
from search.errors import first_line
from search.report.confirmation import confirmation_section, confirmation_text
from search.report.csv_export import trial_frame
from search.report.formatting import (
    format_lower_bound,
    format_number,
    format_settings,
    markdown_table,
)
from search.report.html_report import html_page
from search.report.model_tables import mix_text, model_section, model_sentences
from search.report.objective_text import objective_sentences
from search.report.plots import build_plots
from search.report.prediction_text import prediction_section
from search.report.sweep_tables import fixed_settings, sweep_tables
from search.study.diff import flat
from search.study.outcome import Outcome
from search.study.run_folder import Run, write_atomically
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
_SEARCH_PHASES = tuple(phase for phase in PHASES if phase != "load")
_PHASES_TITLE = "/".join(_SEARCH_PHASES)


def write_report(outcome: Outcome) -> None:
    """Write report.md, report.html and trials.csv into the run's folder; nothing without a trial.

    A reader sees each file as it was before or after, also while another process writes it.

    Raises:
        OSError: a file cannot be written.
    """
    if not outcome.results:
        return
    texts = {
        "trials.csv": trial_frame(outcome.results).to_csv(index=False),
        "report.md": markdown_report(outcome),
        "report.html": html_report(outcome),
    }
    with outcome.run.files_locked():
        for name, text in texts.items():
            write_atomically(outcome.run.folder / name, text)


def markdown_report(outcome: Outcome) -> str:
    """Return the text of report.md."""
    is_sweep = outcome.spec.sweep is not None
    sections = _sweep_sections(outcome) if is_sweep else _search_sections(outcome)
    return "\n\n".join(sections) + "\n"


def html_report(outcome: Outcome) -> str:
    """Return the text of report.html."""
    return html_page(outcome.run.folder.name, markdown_report(outcome), build_plots(outcome))


def _sweep_sections(outcome: Outcome) -> list[str]:
    results = outcome.results
    failed = [r for r in results if r.state is TrialState.FAILED]
    fixed = ", ".join(f"{name}={value}" for name, value in fixed_settings(results).items())
    return [
        f"# {outcome.run.folder.name}",
        ending(outcome),
        f"Fixed settings: {fixed or 'none'}.",
        "Each cell is the median over the repeats (minimum to maximum), each in a fresh server. "
        "A value is bold if it is better with 95 % confidence than that of every other point. Only "
        "points that were measured several times and answered every request are compared. A "
        "request that failed or was not sent counts as a latency of at least the timeout.",
        *(
            part
            for table in sweep_tables(results)
            for part in (f"## {table.kind}", table.markdown())
        ),
        *_bullet_section("## Failed", [(r.number, [first_line(r.cause)]) for r in failed]),
        *_bullet_section("## Warnings", [(r.number, _load_warnings(r)) for r in results]),
        *_environment_section(outcome.run),
    ]


def _search_sections(outcome: Outcome) -> list[str]:
    results = outcome.results
    header, rows = _trial_table(results)
    importance = [(name, format_percent(share)) for name, share in outcome.importance.items()]
    return [
        f"# {outcome.run.folder.name}",
        headline(outcome),
        *objective_sentences(outcome),
        ending(outcome),
        *confirmation_section(outcome.confirmation),
        *model_section(outcome),
        "Each trial below is a single measurement. "
        "The highest of many noisy rates is on average too high.",
        "## Trials",
        markdown_table(header, rows),
        _lost_time(results),
        *_bullet_section(
            "## Why trials are slow or fast", [(r.number, r.explanations) for r in results]
        ),
        *_bullet_section("## Warnings", [(r.number, r.warnings) for r in results]),
        "## Importance of each setting",
        markdown_table(("setting", "share of the variance of the rates"), importance)
        if importance
        else "Unknown: too few trials were measured.",
        *prediction_section(results),
        *_environment_section(outcome.run),
    ]


def render(outcome: Outcome, explained: Sequence[TrialResult] | None = None) -> RenderableType:
    """Return the report for a terminal; it fits 80 columns.

    Args:
        explained: the trials to explain; the best and the reference if None.
    """
    failures = [
        Text(f"Trial {r.number} failed: {first_line(r.cause)}")
        for r in outcome.results
        if r.state is TrialState.FAILED
    ]
    if outcome.spec.sweep is not None:
        tables = [table.rich() for table in sweep_tables(outcome.results)]
        return Group(*tables, *failures, Text(ending(outcome)))
    if explained is None:
        explained = [
            *{r.number: r for r in (outcome.reference, outcome.chosen) if r}.values(),
        ]
    importance = ", ".join(
        f"{name} {format_percent(share)}" for name, share in outcome.importance.items()
    )
    lines = [
        Text(f"seconds: {_PHASES_TITLE}", style="dim"),
        *failures,
        Text(headline(outcome), style="bold"),
        *(Text(sentence) for sentence in objective_sentences(outcome)),
    ]
    if outcome.confirmation:
        lines.append(Text(confirmation_text(outcome.confirmation), style="bold"))
    lines += [Text(sentence) for sentence in model_sentences(outcome)]
    lines += [
        Text(f"Trial {r.number}: {'; '.join(r.explanations)}.") for r in explained if r.explanations
    ]
    lines += [
        Text(f"Trial {r.number}, warning: {warning}.") for r in explained for warning in r.warnings
    ]
    if lost_time := _lost_time(outcome.results):
        lines.append(Text(lost_time))
    lines.append(Text(f"Importance: {importance or 'unknown, too few trials'}."))
    return Group(_terminal_table(outcome), *lines, Text(ending(outcome)))


def _terminal_table(outcome: Outcome) -> Table:
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


def ending(outcome: Outcome) -> str:
    """Return why the run ended, and whether its confirmation is missing."""
    if outcome.restored:
        return (
            "The study of the run cannot be read. The trials are from trials.jsonl, and it is "
            "unknown why the run ended."
        )
    if not outcome.reason:
        return "The run has not ended."
    sentences = [f"The run ended because {outcome.reason}."]
    is_wanted = outcome.spec.confirmation_rounds and outcome.best and not outcome.failed
    if is_wanted and outcome.confirmation is None:
        sentences.append("No round of the confirmation was completed.")
    return " ".join([*sentences, *[f"Note: {note}." for note in outcome.notes]])


def headline(outcome: Outcome) -> str:
    """Return the best trial compared with the reference, in one or two sentences."""
    best, reference = outcome.best, outcome.reference
    if not outcome.results:
        return "No trial has finished yet."
    if best is None:
        has_limits = outcome.objective.has_limits and outcome.closest
        return (
            "No configuration meets the goal."
            if has_limits
            else "No configuration sustained any rate."
        )
    title = "Best of the search" if outcome.confirmation else "Best"
    mix = f" ({text})" if (text := mix_text(outcome)) else ""
    sentence = (
        f"{title}: trial {best.number} sustains {format_number(best.sustained_rps)} rps{mix} at "
        f"100 % success ({format_settings(best.config)}), p99 {format_number(best.p99_s)} s."
    )
    if reference is None or reference.number == best.number:
        return sentence
    name = f"The {reference.origin} configuration (trial {reference.number})"
    if not reference.sustained_rps:
        return f"{sentence} {name} failed: {first_line(reference.cause)}."
    ratio = (best.sustained_rps or 0.0) / reference.sustained_rps
    return (
        f"{sentence} {name} sustains {format_number(reference.sustained_rps)} rps; "
        f"the best sustains {ratio:.1f} times that rate."
    )


def _trial_table(results: list[TrialResult]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the header and the rows of the table of trials in report.md."""
    has_hosts = len({r.host.name for r in results}) > 1
    header = (
        *("trial", "origin", *(title for _, title in _SETTING_COLUMNS), "other settings", "state"),
        *("sustained rps", "lowest rps not sustained", "width", "capacity rps", "p99 s"),
        *("success by batch ≥", "seconds", _PHASES_TITLE),
        *(("host",) if has_hosts else ()),
        "cause",
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


def _lost_time(results: Sequence[TrialResult]) -> str:
    """Return the share of the time that trials without a rate took."""
    total_s = sum(r.duration_s for r in results)
    lost_s = sum(r.duration_s for r in results if r.state is not TrialState.COMPLETE)
    if not total_s:
        return ""
    return f"Pruned and failed trials took {format_percent(lost_s / total_s)} of {total_s:.0f} s."


def _load_warnings(result: TrialResult) -> list[str]:
    return [f"{load.load}: {warning}" for load in result.loads for warning in load.warnings]


def _bullet_section(title: str, sentences: Sequence[tuple[int, Sequence[str]]]) -> list[str]:
    """Return a title and a bullet for each trial that has sentences; nothing without any."""
    bullets = [f"- trial {number}: {'; '.join(texts)}" for number, texts in sentences if texts]
    return [title, "\n".join(bullets)] if bullets else []


def _environment_section(run: Run) -> list[str]:
    recorded = run.recorded()
    facts = [
        (name, str(value))
        for part in ("host", "versions", "placement")
        for name, value in recorded.get(part, {}).items()
    ]
    return ["## Environment", markdown_table(("name", "value"), list(dict(facts).items()))]
