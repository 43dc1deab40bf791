"""The verdict on one window of load. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from loadgen.measurement import Measurement
from loadgen.rate.goal import Goal
from loadgen.rate.thresholds import DEFAULT_THRESHOLDS, Thresholds

CONFIDENCE = 0.95
#: An unknown path is a cause, and a requests file may have many paths.
_MAX_CAUSES = 5


class Verdict(enum.Enum):
    """What a window shows about the rate that was offered in it."""

    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"
    GENERATOR_LIMITED = "generator limited"


def success_bound(trials: float, confidence: float = CONFIDENCE) -> float:
    """Return the success probability that `trials` successes without a failure show.

    >>> round(success_bound(459, 0.99), 4)
    0.99
    """
    return float((1 - confidence) ** (1 / trials)) if trials > 0 else 0.0


def judge(
    measurement: Measurement,
    goal: Goal,
    width: float,
    least_requests: float | None = None,
    is_open: bool = False,
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
) -> tuple[Verdict, str]:
    """Return the verdict on a window, and its reason. A window passes only if it shows that.

    Args:
        width: the relative width that the search aims at; the goal's, or a coarser one.
        least_requests: fewer cannot show that none fails; `thresholds.completions` if None.
        is_open: whether the window can still be extended.
    """
    least_requests = thresholds.completions if least_requests is None else least_requests
    overload = measurement.overload
    if is_open:
        overload = overload.widened(thresholds.early_low, thresholds.early_high)
    grows = overload.low > width / 2
    limited = measurement.generator_limited
    # Requests that were sent late and in a bunch fill a short queue, but fail only a few.
    few_failed = measurement.failed <= thresholds.bunched * measurement.scheduled
    if limited and few_failed and not grows:
        return Verdict.GENERATOR_LIMITED, limited
    if measurement.errors:
        causes = format_errors(measurement.errors)
        return Verdict.FAIL, f"{measurement.failed} of {measurement.scheduled} failed: {causes}"
    if grows:
        return Verdict.FAIL, f"the backlog grew by {overload.fraction:.1%} of the offered rate"
    p99_s = measurement.latency.quantile(0.99) or 0.0
    if goal.p99_s is not None and p99_s > goal.p99_s:
        return Verdict.FAIL, f"p99 latency was {p99_s:.3f} s, above the goal's {goal.p99_s:g} s"
    if measurement.scheduled < least_requests:
        none_failed = f"0 of {measurement.scheduled} failed"
        return Verdict.UNDECIDED, f"{none_failed}, too few requests to show that none fails"
    if overload.high < width / 2:
        return Verdict.PASS, f"0 of {measurement.scheduled} failed, the backlog did not grow"
    return Verdict.UNDECIDED, "the window ended before it was clear whether the backlog grew"


def format_errors(errors: Mapping[str, int]) -> str:
    """Return failed requests by their most frequent causes: "5 × status 503, 1 × timeout"."""
    causes = sorted(errors.items(), key=lambda item: -item[1])
    shown = [f"{count} × {cause}" for cause, count in causes[:_MAX_CAUSES]]
    if further := len(causes) - len(shown):
        shown.append(f"{further} more causes")
    return ", ".join(shown)


def least_window_s(
    measurement: Measurement, goal: Goal, thresholds: Thresholds = DEFAULT_THRESHOLDS
) -> float:
    """Return the least duration after which this window may pass, seconds."""
    rate = measurement.load.rate_rps or 1.0
    cycles_s = thresholds.cycles * measurement.cycle_s
    return max(goal.window_s, cycles_s, thresholds.completions / rate)


def duration_s(measurement: Measurement) -> float:
    """Return how long a window took with its drain, without waiting for its turn, seconds."""
    if "timeout" in measurement.errors:
        return measurement.span_s + measurement.load.timeout_s
    return measurement.span_s + (measurement.service.quantile(1.0) or 0.0)
