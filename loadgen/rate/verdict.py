"""The verdict on one window of load. Pure."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping

from scipy import stats

from loadgen.backlog import SETTLING
from loadgen.formatting import format_percent
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


def success_bound(successes: float, failures: float = 0.0, confidence: float = CONFIDENCE) -> float:
    """Return the lower bound of the success probability by Clopper and Pearson (1934).

    >>> round(success_bound(459, confidence=0.99), 4)
    0.99
    """
    if successes <= 0:
        return 0.0
    return float(stats.beta.ppf(1 - confidence, successes, failures + 1))


def judge(
    measurement: Measurement,
    goal: Goal,
    least_requests: float | None = None,
    widest: float | None = None,
    is_open: bool = False,
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
) -> tuple[Verdict, str]:
    """Return the verdict on a window, and its reason. A window passes only if it shows that.

    Args:
        least_requests: fewer cannot show that none fails; `thresholds.completions` if None.
        widest: see `Thresholds`, whose value is used if None.
        is_open: whether the window goes on.
    """
    least_requests = thresholds.completions if least_requests is None else least_requests
    widest = thresholds.widest if widest is None else widest
    overload = measurement.overload
    if is_open:
        overload = overload.widened(thresholds.early)
    grows = overload.fraction > goal.width / 2 and overload.low > 0
    limited = measurement.generator_limited
    # Requests that were sent late and in a bunch fill a short queue, but fail only a few.
    few_failed = measurement.failed <= thresholds.bunched * measurement.scheduled
    if limited and few_failed and not grows:
        return Verdict.GENERATOR_LIMITED, limited
    # An open window still waits for answers.
    failed = measurement.failed if is_open else measurement.scheduled - measurement.succeeded
    if failed:
        causes = format_errors(measurement.errors) or "no correct answer"
        return Verdict.FAIL, f"{failed} of {measurement.scheduled} failed: {causes}"
    if grows:
        return (
            Verdict.FAIL,
            f"the backlog grew by {format_percent(overload.fraction, 1)} of the offered rate",
        )
    for name, quantile, limit_s in goal.latency_limits:
        if (found_s := measurement.latency.quantile(quantile) or 0.0) > limit_s:
            reason = f"{name} latency was {found_s:.3f} s, above the goal's {limit_s:g} s"
            return Verdict.FAIL, reason
    if measurement.scheduled < least_requests:
        none_failed = f"0 of {measurement.scheduled} failed"
        return Verdict.UNDECIDED, f"{none_failed}, too few requests to show that none fails"
    if overload.fraction <= goal.width / 2 and overload.high <= widest / 2:
        return Verdict.PASS, f"0 of {measurement.scheduled} failed, the backlog did not grow"
    return Verdict.UNDECIDED, "the window ended before it was clear whether the backlog grew"


def is_growth_by_chance(measurement: Measurement, most: float) -> bool:
    """Return whether Poisson arrivals alone explain how much the backlog of a window grew.

    The number of arrivals varies by its square root. The backlog of a server that keeps up grows
    by less than two such deviations with 97.7 % probability.

    Args:
        most: growth ÷ the offered rate above which it is never taken for chance.

    Returns:
        False if a request failed; True if the window was too short to show a trend.
    """
    if measurement.succeeded < measurement.scheduled:
        return False
    settled = (1 - SETTLING) * measurement.scheduled
    is_more = measurement.overload.fraction > min(2 / math.sqrt(max(settled, 1)), most)
    return not is_more


def latency_excess(measurement: Measurement, goal: Goal) -> float | None:
    """Return latency ÷ its limit − 1, of the limit that is exceeded most; None if unknown."""
    found = [
        latency_s / limit_s - 1
        for _, quantile, limit_s in goal.latency_limits
        if (latency_s := measurement.latency.quantile(quantile)) is not None
    ]
    return max(found, default=None)


def format_errors(errors: Mapping[str, int]) -> str:
    """Return failed requests by their most frequent causes: "5 × status 503, 1 × timeout"."""
    causes = sorted(errors.items(), key=lambda item: -item[1])
    shown = [f"{count} × {cause}" for cause, count in causes[:_MAX_CAUSES]]
    if further := len(causes) - len(shown):
        shown.append(f"{further} more causes")
    return ", ".join(shown)


def duration_s(measurement: Measurement) -> float:
    """Return how long a window took with its drain, without waiting for its turn, seconds."""
    if "timeout" in measurement.errors:
        return measurement.span_s + measurement.load.timeout_s
    return measurement.span_s + (measurement.service.quantile(1.0) or 0.0)
