"""The parts of a report, in the order in which people ask. Pure.

1. What to change, what it gains and costs, how sure that is, how many replicas it takes.
2. Rate against latency: today's configuration, the default, the recommended one.
3. What limits the rate now, and what would help next.
4. Latency against offered load.
5. Predicted against measured rates.
6. The confirmation, the trials, their seconds, settings, environment and warnings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadgen.formatting import format_percent
from search.answer.operating_points import OperatingPoint, Role
from search.answer.pareto import pareto_front, pareto_points
from search.answer.predicted import predicted_points
from search.errors import first_line
from search.report.answer_text import predicted_note
from search.report.confirmation import confirmation_section, missing_curves
from search.report.formatting import (
    format_memory,
    format_number,
    format_settings,
    markdown_table,
    with_interval,
)
from search.report.limits_section import limits_section
from search.report.model_tables import model_section
from search.report.objective_text import objective_sentences, optimized
from search.report.prediction_text import prediction_section
from search.report.probe_text import probe_section
from search.report.replicas import replicas_section
from search.report.sweep_tables import fixed_settings, sweep_tables
from search.report.trial_table import lost_time, trial_table
from search.report.verdict import (
    certainty,
    change_table,
    compromise,
    cost_table,
    format_rate,
    verdict,
)
from search.study.outcome import Outcome
from search.study.run_folder import Run
from search.trial.result import TrialResult, TrialState

_ROLE_NAMES = {
    Role.RECOMMENDED: "recommended",
    Role.REFERENCE: "today",
    Role.DEFAULT: "default",
    Role.KNEE: "knee",
    Role.MAX: "highest measured rate",
}
#: How to make the change, and what the terms of the costs mean.
_APPLY = (
    "`servetune export {run}` writes the files that set this: config.properties, the environment "
    "variables, a start script and a README."
)
_TERMS = (
    "The sustained rate is the highest rate at which each request is answered correctly within "
    "{timeout_s:g} s, without a growing backlog, in requests per second (rps). An interval is that "
    "of one more measurement: the speed of a server varies a little from start to start. The p99 "
    "latency is the time within which 99 % of the requests are answered, counted from their due "
    "time. It was measured in one server, whose rate is in parentheses if it differs. Peak memory "
    "is that of the server and its workers, the highest of all measurements."
)
#: Predicted configurations that were not tried, in the table.
_UNTRIED = 3


@dataclass(frozen=True)
class Plot:
    """The place of a plot, by its name in `plots.figures`."""

    name: str


#: Markdown, or a plot, which report.md leaves out.
Part = str | Plot


def report_parts(outcome: Outcome) -> list[Part]:
    """Return the parts of a report in order."""
    return _sweep_parts(outcome) if outcome.spec.sweep is not None else _search_parts(outcome)


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
    return " ".join([*sentences, *[f"Note: {note}." for note in dict.fromkeys(outcome.notes)]])


def _search_parts(outcome: Outcome) -> list[Part]:
    results = outcome.results
    return [
        f"# {outcome.spec.model.archive.name}: {outcome.run.folder.name}",
        *([subject] if (subject := _subject(outcome)) else []),
        f"**{verdict(outcome)}**",
        *([text] if (text := compromise(outcome)) else []),
        *objective_sentences(outcome),
        *([] if outcome.reason and not outcome.restored else [ending(outcome)]),
        *_answer_parts(outcome),
        *_pareto_parts(outcome),
        *limits_section(outcome),
        *_curve_parts(outcome),
        *_prediction_parts(outcome),
        *confirmation_section(outcome.confirmation),
        *model_section(outcome),
        *_trial_parts(outcome),
        *probe_section(results),
        *_explanations(results),
        *_bullet_section("## Warnings", [(r.number, r.warnings) for r in results]),
        "## How the run ended",
        ending(outcome),
        *_environment_section(outcome.run),
    ]


def _subject(outcome: Outcome) -> str:
    """Return what was measured, on which host and when, as far as it is recorded."""
    recorded = outcome.run.recorded()
    host, versions = recorded.get("host", {}), recorded.get("versions", {})
    parts = []
    if version := versions.get("torchserve"):
        parts.append(f"TorchServe {version}")
    if cores := host.get("cores"):
        memory = f" and {host['memory_mb']:,} MiB of memory" if host.get("memory_mb") else ""
        parts.append(f"a host with {cores} cores{memory}")
    if created := recorded.get("created"):
        parts.append(str(created)[:10])
    return f"Measured with {', '.join(parts)}." if parts else ""


def _answer_parts(outcome: Outcome) -> list[Part]:
    """Return what to change, the costs, the certainty and the number of replicas."""
    parts: list[Part] = []
    if changes := change_table(outcome):
        parts += ["## What to change", changes, _APPLY.format(run=outcome.run.argument)]
    if costs := cost_table(outcome):
        parts += [
            "## What it gains and costs",
            costs,
            _TERMS.format(timeout_s=outcome.spec.load.timeout_s),
        ]
    if sure := certainty(outcome):
        parts += ["## How sure this is", sure]
    return [*parts, *replicas_section(outcome)]


def _pareto_parts(outcome: Outcome) -> list[Part]:
    points = pareto_points(outcome)
    front = pareto_front(points)
    shown = [p for p in points if p in front or p.roles]
    if not shown:
        return []
    predicted = predicted_points(outcome)
    untried = [p for p in predicted.points if p.number is None][:_UNTRIED]
    shown += [*untried, *(p for p in predicted.points if p.number is not None)]
    header = ("trial", "role", "sustained rps", "p99 s", "peak memory", "workers", "settings")
    rows = [
        (
            str(p.number) if p.number is not None else p.name,
            _roles(p) if p.is_measured else "predicted",
            format_rate(p),
            with_interval(format_number(p.p99_s) or "not known", p.p99),
            with_interval(format_memory(p.memory_mb) or "not known", p.memory),
            "" if p.workers is None else str(p.workers),
            format_settings(p.config),
        )
        for p in sorted(shown, key=lambda p: (not p.is_measured, -p.sustained_rps))
    ]
    return [
        "## Rate against latency",
        "Each configuration at the highest rate that it sustained. Right and down is better. "
        "Measured rates with an interval are confirmed, the others are of the search; rates whose "
        "intervals overlap may be equal. Of the measured configurations, the table has the Pareto "
        "front: those that no other one is known to beat in rate, p99 latency, memory and workers "
        "at once. The knee is the point beyond which latency rises fastest with the rate.",
        Plot("pareto"),
        markdown_table(header, rows),
        *([note] if (note := predicted_note(predicted)) else []),
    ]


def _roles(point: OperatingPoint) -> str:
    roles = point.roles
    if Role.DEFAULT in roles:
        roles -= {Role.REFERENCE}
    return ", ".join(name for role, name in _ROLE_NAMES.items() if role in roles)


def _curve_parts(outcome: Outcome) -> list[Part]:
    if outcome.chosen is None:
        return []
    return [
        "## Latency against offered load",
        "Time from the due time of a request to its answer, in an open loop: the load does not "
        "wait for the server. The last point of each line is the highest rate that passed.",
        Plot("latency_curve"),
        *([text] if (text := missing_curves(outcome.confirmation)) else []),
    ]


def _prediction_parts(outcome: Outcome) -> list[Part]:
    if not (section := prediction_section(outcome.results)):
        return []
    heading, *rest = section
    return [heading, Plot("predicted"), *rest]


def _trial_parts(outcome: Outcome) -> list[Part]:
    header, rows = trial_table(outcome.results)
    importance = [(name, format_percent(share)) for name, share in outcome.importance.items()]
    return [
        "## Trials",
        "Each trial is a single measurement in a fresh server. The highest of many noisy rates is "
        "on average too high. Origin: why a configuration was tried; guide is a starting "
        "point of TorchServe's performance guide, sampled a choice of the search. Pruned: stopped "
        "early, since it was too slow. Capacity: the throughput of a saturated server. "
        "Width: the verified rate is known to within ± half of this. "
        "Success by batch: no batch failed; with 95 % confidence, at least this share succeeds; "
        "more batches would show a higher one.",
        Plot("trials"),
        markdown_table(header, rows),
        lost_time(outcome.results),
        Plot("seconds"),
        Plot("settings"),
        "## Importance of each setting",
        *(
            (
                Plot("importance"),
                markdown_table(
                    ("setting", f"share of the variance of the {optimized(outcome.objective)}"),
                    importance,
                ),
                "Only measured values count: those of trials that sustained a rate.",
            )
            if importance
            else ("Unknown: too few trials sustained a rate.",)
        ),
    ]


def _sweep_parts(outcome: Outcome) -> list[Part]:
    results = outcome.results
    failed = [r for r in results if r.state is TrialState.FAILED]
    fixed = ", ".join(f"{name}={value}" for name, value in fixed_settings(results).items())
    loads = dict.fromkeys(load.load for r in results for load in r.loads)
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
        *(Plot(f"load: {name}") for name in loads),
        Plot("seconds"),
        *_bullet_section("## Failed", [(r.number, [first_line(r.cause)]) for r in failed]),
        *_bullet_section("## Warnings", [(r.number, _load_warnings(r)) for r in results]),
        *_environment_section(outcome.run),
    ]


def _load_warnings(result: TrialResult) -> list[str]:
    return [f"{load.load}: {warning}" for load in result.loads for warning in load.warnings]


def _explanations(results: Sequence[TrialResult]) -> list[Part]:
    title = "## Why trials are slow or fast"
    section = _bullet_section(title, [(r.number, r.explanations) for r in results])
    if not section:
        return []
    note = "Measured at the sustained rate of each trial, else when its server was saturated."
    return [section[0], note, *section[1:]]


def _bullet_section(title: str, sentences: Sequence[tuple[int, Sequence[str]]]) -> list[Part]:
    """Return a title and a bullet for each trial that has sentences; nothing without any."""
    bullets = [f"- trial {number}: {'; '.join(texts)}" for number, texts in sentences if texts]
    return [title, "\n".join(bullets)] if bullets else []


def _environment_section(run: Run) -> list[Part]:
    recorded = run.recorded()
    facts = [
        (name, str(value))
        for part in ("host", "versions", "placement")
        for name, value in recorded.get(part, {}).items()
    ]
    return ["## Environment", markdown_table(("name", "value"), list(dict(facts).items()))]
