"""Every threshold of the rate search, each with the reason for its value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """Constants of the rate search; a benchmark passes others to see what they change.

    Attributes:
        cycles: rounds of batches that a window lasts at least: fewer do not show a trend.
        completions: answers that a window holds at least, and requests needed to pass.
        stable_windows: consecutive parts of the closed loop whose throughput must agree.
        stable_within: relative difference up to which they agree.
        capacity_margin: the closed loop underestimates; a configuration whose estimate is lower
            than the incumbent by up to this factor may still win.
        first_above: bracketing starts this far above the estimate, at a rate that should fail.
        lowest: nothing is offered below this share of the estimate.
        coarsest: for a slow server the width grows up to this many times the goal's.
        settled: when time is over and windows stay undecided, the width grows up to this many
            times the goal's.
        longer: an undecided window that looks sustained at its limit continues up to this many
            times the limit.
        least_windows: a server whose windows take long gets time for this many.
        shown_at: share of the capacity at which a window must be able to show that no request
            fails.
        last: the last windows may take this many times their least duration.
        last_tries: windows that are still opened when time is over and no rate is known to hold.
        clear_overload: overload above half the width that ends a window before its least
            duration; a window starts empty, and filling the server looks like overload.
        check_growth: a window is checked each time it is this many times as long as at the
            previous check. Checking more often finds by chance what it looks for.
        bunched: a late generator explains failures up to this share of a window's requests.
        early_low, early_high: factors by which the bounds of the overload are widened before a
            window's limit. Simulated queues at 0.9 of their capacity then fail wrongly once in a
            hundred windows, and once in seven without it.
    """

    cycles: int = 20
    completions: int = 20
    stable_windows: int = 3
    stable_within: float = 0.10
    capacity_margin: float = 1.3
    first_above: float = 1.25
    lowest: float = 0.05
    coarsest: float = 4.0
    settled: float = 2.0
    longer: float = 2.0
    least_windows: int = 5
    shown_at: float = 0.6
    last: float = 2.0
    last_tries: int = 6
    clear_overload: float = 0.05
    check_growth: float = 1.25
    bunched: float = 0.05
    early_low: float = 3.0
    early_high: float = 2.0


DEFAULT_THRESHOLDS = Thresholds()
