"""The verdict on one window of load. Pure."""

from __future__ import annotations

import enum

from loadgen.measurement import Measurement
from loadgen.rate.goal import Goal

CYCLES = 20
COMPLETIONS = 20
CONFIDENCE = 0.95
#: A late client explains failures up to this share of a window's requests.
BUNCHED = 0.05
#: How many times as far the bounds of an overload must lie for a window to fail, or pass, before
#: its limit. Where chance is at work a window that starts empty fills for seconds, which looks
#: like an overload. Simulated queues at 0.9 of their capacity fail wrongly once in a hundred
#: windows so, one in seven without it.
EARLY = (3.0, 2.0)


#: The name of what a generator that is not on time leaves unknown.
LIMITED = "generator limited"


class Verdict(enum.Enum):
    """What a window says of the rate that was offered in it."""

    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"
    GENERATOR = LIMITED


def success_bound(trials: float, confidence: float = CONFIDENCE) -> float:
    """The success probability that `trials` successes without a failure show at `confidence`.

    >>> round(success_bound(459, 0.99), 4)
    0.99
    """
    return float((1 - confidence) ** (1 / trials)) if trials > 0 else 0.0


def judge(
    measurement: Measurement,
    goal: Goal,
    width: float,
    least_requests: float = COMPLETIONS,
    early: bool = False,
) -> tuple[Verdict, str]:
    """The verdict on a window, and its reason in words. The burden of proof lies on passing.

    Args:
        width: the relative width that is gone for; the goal's, or a coarser one.
        least_requests: fewer cannot show that none fails.
        early: the window can still be extended.
    """
    over = measurement.overload.surer(*EARLY) if early else measurement.overload
    grows = over.low > width / 2
    limited = measurement.generator_limited
    # Requests that went out late and in a bunch fill a short queue, but fail only a few.
    few = measurement.failed <= BUNCHED * measurement.scheduled
    if limited and few and not grows:
        return Verdict.GENERATOR, limited
    if measurement.errors:
        causes = ", ".join(f"{n} × {cause}" for cause, n in measurement.errors.items())
        return Verdict.FAIL, f"{measurement.failed} of {measurement.scheduled} failed: {causes}"
    if grows:
        return Verdict.FAIL, f"the backlog grew by {over.fraction:.1%} of the offered rate"
    p99_s = measurement.latency.quantile(0.99) or 0.0
    if goal.p99_s is not None and p99_s > goal.p99_s:
        return Verdict.FAIL, f"p99 latency was {p99_s:.3f} s, above the goal's {goal.p99_s:g} s"
    if measurement.scheduled < least_requests:
        share = f"0 of {measurement.scheduled} failed"
        return Verdict.UNDECIDED, f"{share}, too few beside the failures at other rates"
    if over.high < width / 2:
        return Verdict.PASS, f"0 of {measurement.scheduled} failed, the backlog did not grow"
    return Verdict.UNDECIDED, "whether the backlog grew stayed open to the window's end"


def least_window_s(measurement: Measurement, goal: Goal) -> float:
    """The least duration after which this window may pass, seconds."""
    rate = measurement.load.rate_rps or 1.0
    return max(goal.window_s, CYCLES * measurement.cycle_s, COMPLETIONS / rate)


def duration_s(measurement: Measurement) -> float:
    """What a window took, seconds, its drain included; waiting for one's turn is not in it."""
    if "timeout" in measurement.errors:
        return measurement.span_s + measurement.load.timeout_s
    return measurement.span_s + (measurement.service.quantile(1.0) or 0.0)
