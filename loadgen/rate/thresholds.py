"""Every threshold of the rate search, each with the reason for its value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """Constants of the rate search; a benchmark passes others to see what they change.

    Attributes:
        closed_s, closed_cycles: the closed loop lasts this long, seconds, and this number of
            rounds of batches. One round fills the server, and four give the throughput to 1 %.
        closed_times: a slow server's closed loop may take this many times the goal's limit.
        unsteady: at full depth, the closed loop of a server whose throughput has a larger standard
            error than this goes on beyond the goal's limit, up to `closed_times` as long. Workers
            that compete for the cores are fast for seconds and then slow for seconds: 8 s show one
            or the other.
        rising: the closed loop goes on while the second half of its answers came faster than
            the first by this share: the server still warms up.
        precise: the closed loop of a server whose speed varies goes on, up to the goal's limit,
            until the 95 % interval of the estimate is this narrow to either side. One that ranks a
            configuration, or that is repeated in other servers, does not: a longer one was not more
            accurate in simulations of servers whose speed wanders.
        capacity_margin: an estimate and the rate that a later trial sustains differ by up to this
            factor. A configuration that is slower than the incumbent by more is pruned.
        offered: share of the estimate that is offered first. At the estimate itself half of the
            windows would fail.
        cycles, slow_cycles: rounds of batches in a window, and in one whose rounds would take
            longer than the goal's limit otherwise: fewer do not show a trend.
        completions: answers that a window holds at least, and requests needed to pass.
        screen_s, screen_cycles: length of the short window that ranks a configuration.
        tries, screen_tries: rates that are offered before the search gives up, without bracketing.
        least_step, screen_step: a rate that did not pass is lowered by at least this share, and by
            twice, three times this share at the next ones. A rank is worth few windows.
        jitter: share of a certified rate at which Poisson arrivals must be served too.
        jitter_step: share by which a rate is lowered whose Poisson arrivals were not served.
        jitter_s, jitter_cycles: length of that window.
        latency_requests: a window that is judged by its latency has this number of requests, if
            that takes no longer than two of the longest windows, or one if it only ranks: with
            fewer, the 99th percentile is the maximum.
        latency_cycles: rounds of batches in a window that samples latency: it shows no trend.
        widest: a window of full length passes only if the overload is below half of this with
            95 % confidence. The width that a result states is what its windows show.
        least_windows: bracketing of a slow server gets time for this many windows, and that of a
            configuration that is only ranked no more.
        screen_windows: the same for a configuration that is ranked by a rate within limits of the
            latency, whose windows are longer.
        lowest: nothing is offered below this share of the estimate.
        bracket_step: bracketing lowers the rate by this share at first, then by twice as much.
        bunched: a late generator explains failures up to this share of a window's requests.
        early: factor by which the bounds of the overload are widened before a window's end: each
            check is another chance to be wrong.
    """

    closed_s: float = 8.0
    closed_cycles: int = 5
    closed_times: float = 4.0
    unsteady: float = 0.1
    rising: float = 0.15
    precise: float = 0.03
    capacity_margin: float = 1.15
    offered: float = 0.97
    cycles: int = 20
    slow_cycles: int = 12
    completions: int = 20
    screen_s: float = 8.0
    screen_cycles: int = 9
    tries: int = 4
    screen_tries: int = 2
    least_step: float = 0.02
    screen_step: float = 0.05
    jitter: float = 0.9
    jitter_step: float = 0.05
    jitter_s: float = 8.0
    jitter_cycles: int = 9
    latency_requests: int = 200
    latency_cycles: int = 5
    widest: float = 0.2
    least_windows: int = 5
    screen_windows: int = 3
    lowest: float = 0.05
    bracket_step: float = 0.1
    bunched: float = 0.05
    early: float = 2.0


DEFAULT_THRESHOLDS = Thresholds()
