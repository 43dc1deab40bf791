"""What a rate search found."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from loadgen.measurement import Measurement
from loadgen.rate.estimate import Estimate
from loadgen.rate.verdict import CONFIDENCE, Verdict, success_bound


class StopReason(enum.StrEnum):
    """Why a rate search ended."""

    VERIFIED = "a rate close to the estimate passed"
    CONVERGED = "the bounds are close enough"
    MAX_RATE = "the highest allowed rate passed"
    TIME_LIMIT = "the time limit of the search was reached"
    GIVEN_UP = "no rate passed"
    GENERATOR_LIMITED = "the load generator could not offer a higher rate on time"
    PRUNED_BY_RATE = "pruned: a rate below the incumbent's did not pass"
    PRUNED_BY_CAPACITY = "pruned: its capacity is below the incumbent's rate"
    ESTIMATED = "only the capacity was estimated"
    NOT_SERVED = "no request succeeded"


@dataclass(frozen=True)
class Probe:
    """One window at an offered rate.

    Attributes:
        reason: the reason for the verdict.
        measurement: the whole window, with what was observed beside it.
        is_limited: whether it had to meet the goal's limits of the latency.
    """

    rate_rps: float
    verdict: Verdict
    reason: str
    measurement: Measurement
    is_limited: bool = False


@dataclass(frozen=True)
class SustainedRate:
    """The result of a rate search.

    Attributes:
        lower_rps: the highest rate that passed; None if none did.
        upper_rps: the lowest higher rate that did not pass; None if every one did.
        capacity_rps: the closed loop's throughput; 0 without an answer.
        probes: every window at an offered rate, in order.
        warmup: the closed loop's window.
        stop_reason: why the search ended.
        reason: the same in a sentence with its figures.
        width: twice the overload that the windows at `lower_rps` exclude with 95 % confidence,
            and at least the goal's width: how much too high the rate may be, as a distance of
            two bounds.
        estimate: the capacity by all windows in which the server was saturated; None without one.
        pruned: why this cannot beat the incumbent; None if that was not shown.
        warnings: what makes these figures less certain than they look, one sentence each.
        unlimited_rps: the highest rate that passed whatever its latency; None if none did.
        limit_excess: latency ÷ the goal's limit − 1 in the window that was closest to the limits,
            or in that at `goal.for_rps`; 0 without a limit.
        target: the window at `goal.for_rps`; None without one, or if the capacity is below it.
        comparison: the window at the comparison rate, if one was asked for.
        curve: windows of Poisson arrivals at fixed shares of `lower_rps`, by share, if asked for.
    """

    lower_rps: float | None
    upper_rps: float | None
    capacity_rps: float
    probes: tuple[Probe, ...]
    warmup: Measurement
    stop_reason: StopReason
    reason: str
    width: float
    estimate: Estimate | None = None
    pruned: str | None = None
    warnings: tuple[str, ...] = ()
    unlimited_rps: float | None = None
    limit_excess: float = 0.0
    target: Probe | None = None
    comparison: Measurement | None = None
    curve: tuple[tuple[float, Measurement], ...] = ()

    @property
    def best(self) -> Probe | None:
        """The longest window that passed at the lower bound; one that met the limits, if any."""
        passed = [p for p in self._counted if p.verdict is Verdict.PASS]
        return max(passed, key=lambda p: (p.is_limited, p.measurement.scheduled), default=None)

    @property
    def requests_without_failure(self) -> int:
        """Requests at the lower bound, in every window that the generator did not limit.

        None of them failed, otherwise the rate would have been lowered.
        """
        return sum(p.measurement.succeeded for p in self._counted)

    def success_bound(self, batch: float = 1.0) -> float:
        """Return the lower bound of the success probability with 95 % confidence.

        Each rate at which requests failed was another chance to find one at which none fails by
        luck, so that the error probability is divided by their number (Bonferroni).

        Args:
            batch: requests that fail together.
        """
        tries = 1 + len({p.rate_rps for p in self.probes if p.measurement.failed})
        scheduled = sum(p.measurement.scheduled for p in self._counted)
        succeeded = self.requests_without_failure
        return success_bound(
            succeeded / batch, (scheduled - succeeded) / batch, 1 - (1 - CONFIDENCE) / tries
        )

    @property
    def is_generator_limited(self) -> bool:
        """Whether the load generator was the limit in every window: nothing is known."""
        return (
            self.lower_rps is None
            and bool(self.probes)
            and all(p.verdict is Verdict.GENERATOR_LIMITED for p in self.probes)
        )

    @property
    def _counted(self) -> list[Probe]:
        return [
            p
            for p in self.probes
            if p.rate_rps == self.lower_rps and p.verdict is not Verdict.GENERATOR_LIMITED
        ]
