"""What limits the rate now, and what would help next. Pure."""

from __future__ import annotations

from search.confirmation.confirmation import Confirmation
from search.errors import first_line
from search.report.formatting import capitalized
from search.report.verdict import today_name
from search.study.outcome import Outcome
from search.trial.bottleneck import Bottleneck, bottleneck_of
from search.trial.request import TrialOrigin
from search.trial.result import TrialResult, TrialState
from servetune.errors import is_memory


def limits_section(outcome: Outcome) -> list[str]:
    """Return the section of report.md; empty without a trial."""
    parts = []
    for title, found in _shown(outcome):
        parts.append(f"**{title}:** {found.sentence}.")
        if found.evidence:
            parts.append("\n".join(f"- {line}" for line in found.evidence))
        if found.remedies:
            parts.append(f"What would help: {'; '.join(found.remedies)}.")
    if memory := _memory_sentence(outcome):
        parts.append(memory)
    return ["## What limits the rate", *parts] if parts else []


def limit_sentences(outcome: Outcome) -> list[str]:
    """Return what limits today's and the recommended configuration, for a terminal."""
    return [
        f"{title}: {found.sentence}"
        + (f" ({found.evidence[0]})" if found.evidence else "")
        + (f". What would help: {found.remedies[0]}" if found.remedies else "")
        + "."
        for title, found in _shown(outcome)
    ]


def _shown(outcome: Outcome) -> list[tuple[str, Bottleneck]]:
    """Return today's and the recommended configuration with what limits them."""
    reference, chosen = outcome.reference, outcome.chosen
    shown = []
    if reference is not None:
        name = today_name(reference)
        title = f"Now, {name}" if reference.origin is TrialOrigin.BASELINE else capitalized(name)
        if chosen is not None and chosen.config == reference.config:
            return [(title, bottleneck_of(_measured(outcome.confirmation, chosen)))]
        shown.append((title, bottleneck_of(reference)))
    if chosen is not None:
        measured = _measured(outcome.confirmation, chosen)
        title = f"With the recommended configuration, trial {chosen.number}"
        shown.append((title, bottleneck_of(measured)))
    return shown


def _measured(confirmation: Confirmation | None, result: TrialResult) -> TrialResult:
    """Return the verification of a configuration if it has metrics, else the trial."""
    index = confirmation.plan.index_of(result.config) if confirmation else None
    if confirmation is None or index is None:
        return result
    verified = confirmation.verified.get(index)
    return verified if verified and verified.server.handler_times else result


def _memory_sentence(outcome: Outcome) -> str:
    """Return which trials needed more memory than there is; empty without any."""
    failed = [r for r in outcome.results if r.state is TrialState.FAILED and is_memory(r.failure)]
    if not failed:
        return ""
    numbers = ", ".join(str(r.number) for r in failed)
    trials = "Trial" if len(failed) == 1 else "Trials"
    return (
        f"**Memory:** {trials} {numbers} needed more memory than there is "
        f"({first_line(failed[-1].cause)}). With more memory, more workers or larger batches could "
        "be tried."
    )
