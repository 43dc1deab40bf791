"""The report of a run: on a terminal, report.md, report.html and trials.csv."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from loadgen.formatting import format_percent
from search.atomic_files import write_atomically
from search.errors import first_line
from search.report.confirmation import confirmation_text
from search.report.csv_export import trial_frame
from search.report.html_report import html_page
from search.report.limits_section import limit_sentences
from search.report.model_tables import model_sentences
from search.report.objective_text import objective_sentences, optimized
from search.report.plots import figures
from search.report.replicas import replicas_sentence
from search.report.sections import ending, report_parts
from search.report.sweep_tables import sweep_tables
from search.report.trial_table import PHASES_TITLE, lost_time, terminal_table
from search.report.verdict import certainty, changed_settings, compromise, verdict
from search.study.outcome import Outcome
from search.trial.result import TrialResult, TrialState


def write_report(outcome: Outcome) -> None:
    """Write report.md, report.html and trials.csv into the run's folder; nothing without a trial.

    Without the study, less is known about the run. An earlier report then stays as it is.
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
            path = outcome.run.folder / name
            if not (outcome.restored and path.exists()):
                write_atomically(path, text)


def markdown_report(outcome: Outcome) -> str:
    """Return the text of report.md."""
    texts = [part for part in report_parts(outcome) if isinstance(part, str) and part]
    return "\n\n".join(texts) + "\n"


def html_report(outcome: Outcome) -> str:
    """Return the text of report.html."""
    return html_page(outcome.run.folder.name, report_parts(outcome), figures(outcome))


def render(outcome: Outcome, explained: Sequence[TrialResult] | None = None) -> RenderableType:
    """Return the report for a terminal, the verdict first; it fits 80 columns.

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
    return Group(
        *(
            Text(line, style="" if number else "bold")
            for number, line in enumerate(answer_sentences(outcome))
        ),
        Text(),
        terminal_table(outcome),
        Text(f"seconds: {PHASES_TITLE}", style="dim"),
        *failures,
        *(Text(line) for line in _detail_lines(outcome, explained)),
        Text(ending(outcome)),
    )


def answer_sentences(outcome: Outcome) -> list[str]:
    """Return the verdict, the changes, the certainty, the replicas and the limits."""
    changes = ", ".join(f"{name} {old} → {new}" for name, old, new in changed_settings(outcome))
    lines = [
        verdict(outcome),
        compromise(outcome),
        *objective_sentences(outcome),
        f"What to change: {changes}." if changes else "",
        f"How sure this is: {sure}" if (sure := certainty(outcome)) else "",
        replicas_sentence(outcome),
        *limit_sentences(outcome),
    ]
    return [line for line in lines if line]


def _detail_lines(outcome: Outcome, explained: Sequence[TrialResult]) -> list[str]:
    importance = ", ".join(
        f"{name} {format_percent(share)}" for name, share in outcome.importance.items()
    )
    lines = [confirmation_text(outcome.confirmation)] if outcome.confirmation else []
    lines += model_sentences(outcome)
    lines += [
        f"Trial {r.number}: {'; '.join(r.explanations)}." for r in explained if r.explanations
    ]
    lines += [f"Trial {r.number}, warning: {warning}." for r in explained for warning in r.warnings]
    if lost := lost_time(outcome.results):
        lines.append(lost)
    of = "" if outcome.objective.maximizes_rate else f" for {optimized(outcome.objective)}"
    return [*lines, f"Importance{of}: {importance or 'unknown, too few trials'}."]
