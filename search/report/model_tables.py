"""The models that shared a server: their settings and their loads, before and after. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import median
from typing import TypeVar

from loadgen.formatting import format_percent
from search.report.formatting import format_number, format_values, markdown_table
from search.study.outcome import Outcome
from search.trial.background import BackgroundRecord
from search.trial.mix import MixRecord
from search.trial.result import TrialResult

_COLUMNS = ("model", "with", "rps", "requests", "failed")
Record = TypeVar("Record", BackgroundRecord, MixRecord)


def model_sentences(outcome: Outcome) -> list[str]:
    """Return what shared the host with the tuned model, and how it fared; empty if it was alone."""
    shown = _shown(outcome)
    if not shown:
        return []
    names = ", ".join(_described(outcome, name) for name in shown[-1].server.other_models)
    sentences = [f"The server also served {names}."]
    for row in _background_rows(outcome):
        model, name, _, requests, failed, p50, p99 = row
        sentences.append(
            f"Background {model}, {name}: p50 {p50} s, p99 {p99} s, {failed} of {requests} failed."
        )
    for row in _mix_rows(outcome):
        model, name, _, requests, failed, *quantiles = row
        p50, p95, p99 = quantiles
        sentences.append(
            f"{model} in the mix, {name}: p50 {p50} s, p95 {p95} s, p99 {p99} s, "
            f"{failed} of {requests} failed."
        )
    return sentences


def model_section(outcome: Outcome) -> list[str]:
    """Return the parts of a report on the models of the server; empty if there was only one."""
    shown = _shown(outcome)
    if not shown:
        return []
    header = ("model", *(f"settings in {_name(r, outcome)}" for r in shown), "load")
    rows = [
        (
            name,
            *(format_values(result.server.other_models.get(name, {})) for result in shown),
            _load_of(outcome, name),
        )
        for name in shown[-1].server.other_models
    ]
    parts = ["## Other models in the server", markdown_table(header, rows)]
    if background := _background_rows(outcome):
        parts += [
            "The background's own requests at the sustained rate of each configuration:",
            markdown_table((*_COLUMNS, "p50 s", "p99 s"), background),
        ]
    if mix := _mix_rows(outcome):
        parts += [
            "The requests of each model of the mix at the sustained rate of each configuration:",
            markdown_table((*_COLUMNS, "p50 s", "p95 s", "p99 s"), mix),
        ]
    return parts


def mix_text(outcome: Outcome) -> str:
    """Return the shares of a mix, such as "a mix of 3 cat : 1 dog"; empty without one."""
    shares = " : ".join(f"{share:g} {name}" for name, share in outcome.spec.load.mix.items())
    return f"a mix of {shares}" if shares else ""


def _shown(outcome: Outcome) -> list[TrialResult]:
    """Return the reference and the chosen trial, as far as their servers had other models."""
    trials = {r.number: r for r in (outcome.reference, outcome.chosen) if r}
    return [result for result in trials.values() if result.server.other_models]


def _name(result: TrialResult, outcome: Outcome) -> str:
    is_reference = outcome.reference is not None and result.number == outcome.reference.number
    return f"trial {result.number} ({result.origin})" if is_reference else f"trial {result.number}"


def _described(outcome: Outcome, model: str) -> str:
    load = _load_of(outcome, model)
    return f"{model} ({load})" if load else model


def _load_of(outcome: Outcome, model: str) -> str:
    load = outcome.spec.load
    if model in load.mix:
        return f"{format_percent(load.mix[model] / sum(load.mix.values()))} of the mix"
    rates = [each.rate_rps for each in load.background if each.model == model]
    return f"{rates[0]:g} rps in the background" if rates else "no load"


def _background_rows(outcome: Outcome) -> list[tuple[str, ...]]:
    """Return a row for each background model of the reference, then of the chosen trial."""
    return [
        (
            model,
            name,
            f"{records[0].rate_rps:g}",
            str(sum(record.scheduled for record in records)),
            str(sum(record.failed for record in records)),
            _median(record.p50_s for record in records),
            _median(record.p99_s for record in records),
        )
        for model, name, records in _records(outcome, lambda result: result.background)
    ]


def _mix_rows(outcome: Outcome) -> list[tuple[str, ...]]:
    """Return a row for each model of the mix of the reference, then of the chosen trial."""
    return [
        (
            model,
            name,
            _median(record.rate_rps for record in records),
            str(sum(record.sent for record in records)),
            str(sum(record.failed for record in records)),
            _median(record.p50_s for record in records),
            _median(record.p95_s for record in records),
            _median(record.p99_s for record in records),
        )
        for model, name, records in _records(outcome, lambda result: result.mix)
    ]


def _records(
    outcome: Outcome, records_of: Callable[[TrialResult], Sequence[Record]]
) -> Iterator[tuple[str, str, list[Record]]]:
    """Yield each model with the name of each shown trial, and its records there."""
    for trial in _shown(outcome):
        found = [each for r in _measurements(outcome, trial) for each in records_of(r)]
        for model in dict.fromkeys(record.model for record in found):
            yield model, _name(trial, outcome), [each for each in found if each.model == model]


def _median(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return format_number(median(known)) if known else ""


def _measurements(outcome: Outcome, trial: TrialResult) -> Sequence[TrialResult]:
    """Return the verification or the visits of a trial's configuration, otherwise the trial."""
    confirmation = outcome.confirmation
    index = confirmation.plan.index_of(trial.config) if confirmation else None
    if confirmation is None or index is None:
        return (trial,)
    if index in confirmation.verified:
        return (confirmation.verified[index],)
    return confirmation.visits(index) or (trial,)
