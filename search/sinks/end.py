"""Report the end of a run to its webhooks and to MLflow."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from search.answer.gain import gain_of, rates_of_gain
from search.sinks.mlflow_log import log_outcome
from search.sinks.webhook import notify, read_secret
from search.spec.schema import StudySpec
from search.study.outcome import Outcome
from search.study.run_folder import Run


def with_sinks(run: Run, execute: Callable[[], Outcome], warn: Callable[[str], None]) -> Outcome:
    """Return the outcome of a run, and report its end.

    Args:
        execute: runs the study; any error of it is reported and raised.
        warn: receives what could not be sent.
    """
    spec = run.spec()
    started_s = time.time()
    try:
        outcome = execute()
    except Exception as error:
        send_end(spec, "failed", {**_facts(run, started_s), "reason": str(error)}, warn)
        raise
    except BaseException:
        send_end(spec, "stopped", {**_facts(run, started_s), "reason": "it was interrupted"}, warn)
        raise
    log_to_mlflow(outcome, warn)
    send_end(spec, event_of(outcome), {**_facts(run, started_s), **result_of(outcome)}, warn)
    return outcome


def log_to_mlflow(outcome: Outcome, warn: Callable[[str], None]) -> None:
    """Log a run to the MLflow server that its specification names."""
    if outcome.spec.output.mlflow is not None:
        for warning in log_outcome(outcome, outcome.spec.output.mlflow):
            warn(warning)


def send_end(
    spec: StudySpec, event: str, data: dict[str, Any], warn: Callable[[str], None]
) -> None:
    """Send an event to the webhooks of a specification."""
    if not spec.notify:
        return
    try:
        secret = read_secret()
    except OSError as error:
        warn(f"no webhook was sent: the key of their signatures cannot be read: {error}")
        return
    for warning in notify(spec.notify, event, data, secret):
        warn(warning)


def event_of(outcome: Outcome) -> str:
    """Return the event that the end of a run is."""
    if outcome.interrupted:
        return "stopped"
    return "failed" if outcome.failed else "finished"


def result_of(outcome: Outcome) -> dict[str, Any]:
    """Return the figures of the chosen trial and of the reference, rates in requests/s.

    The rates are those of the confirmation, else of the search; see `search.answer.gain`.
    """
    chosen, gain = outcome.chosen, gain_of(outcome)
    best_rps, reference_rps = rates_of_gain(outcome)
    return {
        "reason": outcome.reason,
        "trials": len(outcome.results),
        "best_rps": best_rps,
        "reference_rps": reference_rps,
        "ratio": gain.ratio.mean if gain else None,
        "ratio_low": gain.ratio.low if gain else None,
        "ratio_high": gain.ratio.high if gain else None,
        "ratio_warnings": list(gain.warnings) if gain else [],
        "confirmed": outcome.confirmation is not None,
        "settings": chosen.config.to_dict() if chosen else None,
    }


def _facts(run: Run, started_s: float) -> dict[str, Any]:
    return {"run": run.name, "started_s": round(started_s, 3), "ended_s": round(time.time(), 3)}
