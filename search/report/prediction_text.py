"""Predicted rates in a report. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from loadgen.formatting import format_percent
from search.report.formatting import format_number, markdown_table
from search.trial.prediction import PredictedRate
from search.trial.result import TrialResult


def format_prediction(predicted: PredictedRate) -> str:
    """Return a rate with its interval; "not known" if the interval is too wide to be of use."""
    if predicted.low_rps is None or predicted.high_rps is None:
        return "not known"
    interval = f"{format_number(predicted.low_rps)} to {format_number(predicted.high_rps)}"
    if not predicted.is_known:
        return f"not known ({interval})"
    return f"{format_number(predicted.median_rps)} ({interval})"


def prediction_section(results: Sequence[TrialResult]) -> list[str]:
    """Return the section with the rate predicted before each trial beside the measured one.

    Empty without a trial that had a prediction and a sustained rate.
    """
    rows, errors, inside = [], [], []
    for result in results:
        predicted, rate = result.predicted, result.sustained_rps
        if predicted is None or predicted.median_rps is None or not rate:
            continue
        verdict = "–"
        if predicted.is_known:
            is_inside = (predicted.low_rps or 0.0) <= rate <= (predicted.high_rps or 0.0)
            inside.append(is_inside)
            errors.append(abs(predicted.median_rps / rate - 1))
            verdict = "yes" if is_inside else "no"
        cells = str(result.number), format_prediction(predicted), format_number(rate)
        rows.append((*cells, verdict))
    if not rows:
        return []
    summary = "Trials that were pruned or failed have no measured rate."
    if errors:
        summary = (
            f"Median error of the known predictions {format_percent(median(errors))}; "
            f"{sum(inside)} of {len(errors)} measured rates are in the 90 % interval of the true "
            f"rate. {summary}"
        )
    header = ("trial", "predicted before it, rps (90 % interval)", "measured rps", "in interval")
    return ["## Predicted and measured rates", summary, markdown_table(header, rows)]
