"""What a rate search found."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from loadgen.measurement import Measurement
from loadgen.rate.verdict import Verdict


class StopReason(enum.StrEnum):
    """Why a rate search ended."""

    CONVERGED = "the bounds are close enough"
    MAX_RATE = "the highest allowed rate passed"
    TIME_LIMIT = "the time limit of the search was reached"
    GENERATOR_LIMITED = "the load generator could not offer a higher rate on time"
    PRUNED_BY_CAPACITY = "pruned: its capacity is below the incumbent's rate"
    PRUNED_BY_INCUMBENT = "pruned: it does not sustain the incumbent's rate"
    NOT_SERVED = "no request succeeded"


@dataclass(frozen=True)
class Probe:
    """One window at an offered rate.

    Attributes:
        reason: the reason for the verdict.
        measurement: the whole window, with what was observed beside it.
    """

    rate_rps: float
    verdict: Verdict
    reason: str
    measurement: Measurement


@dataclass(frozen=True)
class SustainedRate:
    """The result of a rate search.

    Attributes:
        lower_rps: the highest rate that passed; None if none did.
        upper_rps: the lowest rate that did not pass; None if every one did.
        capacity_rps: the closed loop's throughput, an estimate.
        probes: every window at an offered rate, in order.
        warmup: the closed loop's window.
        stop_reason: why the search ended.
        reason: the same in a sentence with its figures.
        width: the relative width that the search aimed at: the goal's, or a coarser one for a
            server whose batches take seconds, or that varies so much that windows stayed
            undecided.
        pruned: why this cannot beat the incumbent; None if that was not shown.
        warnings: what makes these figures less certain than they look, one sentence each.
        p99_excess: least p99 latency of any window ÷ the goal's limit − 1; 0 without a limit.
        comparison: the window at the comparison rate, if one was asked for.
    """

    lower_rps: float | None
    upper_rps: float | None
    capacity_rps: float
    probes: tuple[Probe, ...]
    warmup: Measurement
    stop_reason: StopReason
    reason: str
    width: float
    pruned: str | None = None
    warnings: tuple[str, ...] = ()
    p99_excess: float = 0.0
    comparison: Measurement | None = None

    @property
    def best(self) -> Probe | None:
        """The longest window that passed at the lower bound."""
        return max(self._passed, key=lambda p: p.measurement.scheduled, default=None)

    @property
    def requests_without_failure(self) -> int:
        """Requests offered at the lower bound in windows that passed: none of them failed."""
        return sum(p.measurement.succeeded for p in self._passed)

    @property
    def is_generator_limited(self) -> bool:
        """Whether the load generator was the limit in every window: nothing is known."""
        return (
            self.lower_rps is None
            and bool(self.probes)
            and all(p.verdict is Verdict.GENERATOR_LIMITED for p in self.probes)
        )

    @property
    def _passed(self) -> list[Probe]:
        return [
            p for p in self.probes if p.rate_rps == self.lower_rps and p.verdict is Verdict.PASS
        ]
