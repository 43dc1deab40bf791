"""Trial results for tests, made from a few figures."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import (
    HostRecord,
    LatencyRecord,
    RateRecord,
    ServerRecord,
    TimingRecord,
    TrialResult,
    TrialState,
)
from serving.configuration.config import ServerConfig

#: A window in measurements.json, as far as it is read.
WINDOW = {
    "schedule": {"rate_rps": 40.0},
    "goodput_rps": 39.5,
    "scheduled": 400,
    "succeeded": 398,
    "errors": {"timeout": 2},
    "latency_s": {"p50": 0.1, "p99": 0.4},
    "server": {"queue_s": 0.02, "inference_s": 0.08},
}
_RECORDS = {
    "rate": RateRecord,
    "latency": LatencyRecord,
    "server": ServerRecord,
    "host": HostRecord,
    "timing": TimingRecord,
}


def trial_result(
    number: int = 0,
    sustained_rps: float | None = None,
    config: ServerConfig | None = None,
    origin: TrialOrigin = TrialOrigin.SAMPLED,
    state: TrialState | None = None,
    **figures: Any,
) -> TrialResult:
    """Return a result with each figure in the record that has a field of this name.

    The default state is COMPLETE with a rate, FAILED without one.
    """
    if state is None:
        state = TrialState.COMPLETE if sustained_rps else TrialState.FAILED
    figures = {"sustained_rps": sustained_rps, **figures}
    records = {}
    for name, kind in _RECORDS.items():
        names = {field.name for field in fields(kind)}
        records[name] = kind(**{key: figures.pop(key) for key in names & figures.keys()})
    return TrialResult(number, origin, config or ServerConfig(), state, **records, **figures)


def result_for(
    request: TrialRequest, sustained_rps: float | None = None, **figures: Any
) -> TrialResult:
    """Return a result of a request; see `trial_result`."""
    return trial_result(request.number, sustained_rps, request.config, request.origin, **figures)


def visit_for(
    request: TrialRequest, capacity_rps: float | None = None, **figures: Any
) -> TrialResult:
    """Return the result of a visit of a confirmation: a closed loop, or a failure without one."""
    state = TrialState.COMPLETE if capacity_rps else TrialState.FAILED
    return result_for(request, None, state=state, capacity_rps=capacity_rps, **figures)
