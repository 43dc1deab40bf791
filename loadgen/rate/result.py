"""What a rate search found."""

from __future__ import annotations

from dataclasses import dataclass

from loadgen.measurement import Measurement
from loadgen.rate.verdict import Verdict


@dataclass(frozen=True)
class Probe:
    """One window of the search, its verdict and the reason for it."""

    rate_rps: float
    verdict: Verdict
    reason: str
    measurement: Measurement


@dataclass(frozen=True)
class SustainedRate:
    """What the search found.

    Attributes:
        lower_rps: the highest rate that passed; None where none did.
        upper_rps: the lowest that did not pass; None where every one did.
        capacity_rps: the closed loop's throughput, an estimate.
        probes: every window at an offered rate, in order.
        warmup: the closed loop's measurement.
        reason: why the search ended.
        width: the relative width that it went for: the goal's, or a coarser one for a server
            whose batches take seconds, or vary so much that windows stayed undecided to the end.
        pruned: why this cannot beat the incumbent; None where that was not shown.
        doubts: what makes these figures less sure than they look, a sentence each.
        p99_excess: the least p99 latency of any window ÷ the goal's limit − 1; 0 without a limit.
        common: the window at the rate that several configurations are compared at, if asked for.
    """

    lower_rps: float | None
    upper_rps: float | None
    capacity_rps: float
    probes: tuple[Probe, ...]
    warmup: Measurement
    reason: str
    width: float
    pruned: str | None = None
    doubts: tuple[str, ...] = ()
    p99_excess: float = 0.0
    common: Measurement | None = None

    @property
    def best(self) -> Probe | None:
        """The longest window that passed at the lower bound."""
        passed = [
            p for p in self.probes if p.rate_rps == self.lower_rps and p.verdict is Verdict.PASS
        ]
        return max(passed, key=lambda p: p.measurement.scheduled, default=None)

    @property
    def zero_failures_of(self) -> int:
        """Requests offered at the lower bound in windows that passed: none of them failed."""
        return sum(
            p.measurement.succeeded
            for p in self.probes
            if p.rate_rps == self.lower_rps and p.verdict is Verdict.PASS
        )
