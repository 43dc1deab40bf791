"""Runs side by side: what differs between them first, then their figures and ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from search.report.formatting import markdown, number, share, span
from search.report.summary import describe
from search.report.sweep_tables import SHOWN
from search.study.diff import differences
from search.study.intervals import Interval, mean_interval, ratio_interval
from search.study.outcome import Outcome
from search.trial.result import TrialResult


def compare(found: Sequence[Outcome]) -> str:
    """The comparison as Markdown; the ratios are to the first run."""
    first, *others = found
    sections = [f"# {' against '.join(each.run.name for each in found)}"]
    for other in others:
        told = differences(first.run, other.run)
        lines = [f"- {difference}" for difference in told] or ["- nothing that was recorded"]
        sections += [f"**{other.run.name} differs from {first.run.name} in**", "\n".join(lines)]
    if all(any(r.loads for r in each.results) for each in found):
        sections.append(_sweeps(found))
    else:
        sections += [_searches(found), _HOW]
    return "\n\n".join(sections) + "\n"


_HOW = (
    "Rates of runs that were not confirmed are their searches' own, each measured once and on "
    "average too high; a ratio has its 95 % interval where both runs were confirmed."
)


def _searches(found: Sequence[Outcome]) -> str:
    header = ("run", "trial", "settings", "rps", "÷ the first run", "95 %", "÷ its reference")
    rows = []
    for each in found:
        chosen = each.chosen
        if chosen is None:
            rows.append((each.run.name, "", "", "none", "", "", ""))
            continue
        ratio, interval = _ratio(_rates(each), _rates(found[0]))
        rows.append(
            (
                each.run.name,
                str(chosen.number),
                describe(chosen.config),
                number(_mean(_rates(each))),
                ratio if each is not found[0] else "",
                span(interval, ".2f") if each is not found[0] else "",
                _to_reference(each, chosen),
            )
        )
    return markdown(header, rows)


def _rates(each: Outcome) -> list[float]:
    """Of what was chosen: its rates by round where it was confirmed, else its search's."""
    if each.confirmation is not None:
        return each.confirmation.rounds.served(each.confirmation.winner)
    chosen = each.chosen
    return [chosen.sustained_rps] if chosen and chosen.sustained_rps else []


def _to_reference(each: Outcome, chosen: TrialResult) -> str:
    if each.confirmation is not None and each.confirmation.winner:
        interval = mean_interval(each.confirmation.rounds.ratios(each.confirmation.winner))
        return f"{interval.mean:.2f} ({span(interval, '.2f')})" if interval else ""
    reference = each.reference
    if reference is None or not reference.sustained_rps or not chosen.sustained_rps:
        return ""
    return f"{chosen.sustained_rps / reference.sustained_rps:.2f}"


def _sweeps(found: Sequence[Outcome]) -> str:
    names = [each.run.name for each in found]
    cells = [_cells(each.results) for each in found]
    header = ("load", "point", "figure", *names, *(f"{n} ÷ first (95 %)" for n in names[1:]))
    rows = []
    for key in dict.fromkeys(key for each in cells for key in each):
        values = [each.get(key, []) for each in cells]
        ratios = []
        for other in values[1:]:
            ratio, interval = _ratio(other, values[0])
            ratios.append(f"{ratio} ({span(interval, '.2f')})" if interval else ratio)
        medians = [
            (number(median(each)) if each else "none") + _answered(run.results, key[:2])
            for each, run in zip(values, found, strict=True)
        ]
        rows.append((*key, *medians, *ratios))
    return markdown(header, rows)


def _cells(results: Sequence[TrialResult]) -> Mapping[tuple[str, str, str], list[float]]:
    """By load, point and the figure that says most: its values over the repeats."""
    cells: dict[tuple[str, str, str], list[float]] = {}
    for result in results:
        point = describe(result.config)
        for load in result.loads:
            column = SHOWN[load.kind]
            if (value := getattr(load, column)) is not None:
                cells.setdefault((load.load, point, column), []).append(value)
    return cells


def _answered(results: Sequence[TrialResult], key: tuple[str, ...]) -> str:
    """Of what was not answered whole, how much was: its other figures are of the rest alone."""
    rates = [
        load.success_rate
        for result in results
        for load in result.loads
        if (load.load, describe(result.config)) == key and load.success_rate is not None
    ]
    return f" ({share(min(rates))} answered)" if rates and min(rates) < 1 else ""


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[str, Interval | None]:
    if not ours or not theirs:
        return "", None
    if min(*ours, *theirs) <= 0:  # No logarithm, and no mean ratio.
        return (f"{median(ours) / middle:.2f}" if (middle := median(theirs)) else ""), None
    interval = ratio_interval(ours, theirs)
    ratio = interval.mean if interval else (_mean(ours) or 0.0) / (_mean(theirs) or 1.0)
    return f"{ratio:.2f}", interval


def _mean(values: Sequence[float]) -> float | None:
    interval = mean_interval(values)
    return interval.mean if interval else (values[0] if values else None)
