"""Several runs compared: their differences, then their rates and ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from search.answer.gain import gain_of
from search.intervals import Interval, mean_interval, ratio_interval
from search.report.formatting import (
    format_number,
    format_ratio,
    format_ratio_interval,
    format_settings,
    format_share,
    markdown_table,
)
from search.report.sweep_tables import MAIN_COLUMN
from search.study.diff import differences
from search.study.outcome import Outcome
from search.trial.result import TrialResult

_NOTE_ON_RATES = (
    "The rate of an unconfirmed run is from its search: it was measured once and is on average "
    "too high. A ratio has a 95 % interval only if both runs were confirmed."
)


def compare(outcomes: Sequence[Outcome]) -> str:
    """Return the comparison in Markdown; ratios are to the first run."""
    first, *others = outcomes
    sections = [f"# {' compared with '.join(outcome.run.folder.name for outcome in outcomes)}"]
    for other in others:
        lines = [f"- {difference}" for difference in differences(first.run, other.run)]
        sections += [
            f"**What changed from {first.run.folder.name} to {other.run.folder.name}**",
            "\n".join(lines or ["- nothing that was recorded"]),
        ]
    if all(any(r.loads for r in outcome.results) for outcome in outcomes):
        sections.append(_sweep_table(outcomes))
    else:
        sections += [_search_table(outcomes), _NOTE_ON_RATES]
    return "\n\n".join(sections) + "\n"


def _search_table(outcomes: Sequence[Outcome]) -> str:
    header = (
        "run",
        "trial",
        "settings",
        "rps",
        "ratio to the first run",
        "95 % interval",
        "ratio to its reference",
    )
    rows = []
    first = outcomes[0]
    for outcome in outcomes:
        chosen = outcome.chosen
        if chosen is None:
            rows.append((outcome.run.folder.name, "", "", "none", "", "", ""))
            continue
        ratio, interval = _ratio(_chosen_rates(outcome), _chosen_rates(first))
        rows.append(
            (
                outcome.run.folder.name,
                str(chosen.number),
                format_settings(chosen.config),
                format_number(_mean(_chosen_rates(outcome))),
                ratio if outcome is not first else "",
                format_ratio_interval(interval) if interval and outcome is not first else "",
                _ratio_to_reference(outcome),
            )
        )
    return markdown_table(header, rows)


def _chosen_rates(outcome: Outcome) -> list[float]:
    """Return the chosen configuration's rates: by round if confirmed, else that of the search."""
    if outcome.confirmation is not None:
        winner = outcome.confirmation.winner
        share = outcome.confirmation.sustained_share(winner) or 1.0
        return [share * rate for rate in outcome.confirmation.rates(winner)]
    chosen = outcome.chosen
    return [chosen.sustained_rps] if chosen and chosen.sustained_rps else []


def _ratio_to_reference(outcome: Outcome) -> str:
    if (gain := gain_of(outcome)) is None:
        return ""
    if not gain.is_confirmed:
        return f"{format_ratio(gain.ratio.mean)}, not confirmed"
    return f"{format_ratio(gain.ratio.mean)} ({format_ratio_interval(gain.ratio)})"


def _sweep_table(outcomes: Sequence[Outcome]) -> str:
    names = [outcome.run.folder.name for outcome in outcomes]
    figures_of_runs = [_figures(outcome.results) for outcome in outcomes]
    header = ("load", "point", "figure", *names, *(f"{n} ÷ first (95 %)" for n in names[1:]))
    rows = []
    for key in dict.fromkeys(key for figures in figures_of_runs for key in figures):
        values_of_runs = [figures.get(key, []) for figures in figures_of_runs]
        ratios = []
        for values in values_of_runs[1:]:
            ratio, interval = _ratio(values, values_of_runs[0])
            ratios.append(f"{ratio} ({format_ratio_interval(interval)})" if interval else ratio)
        medians = [
            (format_number(median(values)) if values else "none")
            + _answered_text(outcome.results, key[:2])
            for values, outcome in zip(values_of_runs, outcomes, strict=True)
        ]
        rows.append((*key, *medians, *ratios))
    return markdown_table(header, rows)


def _figures(results: Sequence[TrialResult]) -> Mapping[tuple[str, str, str], list[float]]:
    """Return the values of each load's main column, by load, point and column."""
    figures: dict[tuple[str, str, str], list[float]] = {}
    for result in results:
        point = format_settings(result.config)
        for load in result.loads:
            column = MAIN_COLUMN[load.kind]
            if (value := getattr(load, column)) is not None:
                figures.setdefault((load.load, point, column), []).append(value)
    return figures


def _answered_text(results: Sequence[TrialResult], load_and_point: tuple[str, ...]) -> str:
    """Return the lowest success rate, if it is below 1: the figures omit what failed."""
    rates = [
        load.success_rate
        for result in results
        for load in result.loads
        if (load.load, format_settings(result.config)) == load_and_point
        and load.success_rate is not None
    ]
    return f" ({format_share(min(rates))} answered)" if rates and min(rates) < 1 else ""


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[str, Interval | None]:
    if not ours or not theirs:
        return "", None
    if min(*ours, *theirs) <= 0:  # A logarithm does not exist: compare medians.
        denominator = median(theirs)
        return (format_ratio(median(ours) / denominator) if denominator else ""), None
    interval = ratio_interval(ours, theirs)
    ratio = interval.mean if interval else (_mean(ours) or 0.0) / (_mean(theirs) or 1.0)
    return format_ratio(ratio), interval


def _mean(values: Sequence[float]) -> float | None:
    interval = mean_interval(values)
    return interval.mean if interval else (values[0] if values else None)
