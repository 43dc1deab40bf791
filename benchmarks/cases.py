"""Cases of the rate search benchmark: laws from 20 to 2000 rps, and servers with faults."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from benchmarks.law import Faults, Law
from benchmarks.truth import Window

MAX_USERS = 2000


@dataclass(frozen=True)
class Case:
    """A server, and how requests arrive at it.

    Attributes:
        name: the name for --case.
        arrivals: "constant" or "poisson".
        faults: times count from the first window of bracketing.
        expects: for a case with faults, the expected result of a search.
    """

    name: str
    law: Law
    arrivals: str = "constant"
    faults: Faults = Faults()
    expects: str = ""

    @property
    def cycle_requests(self) -> int:
        """Requests in one round of batches."""
        return self.law.workers * self.law.batch

    @property
    def users(self) -> int:
        """Users of the closed loop, as many as a trial has."""
        cycle = self.cycle_requests
        return max(2, min(2 * cycle, cycle + self.law.queue, MAX_USERS))

    @property
    def window(self) -> Window:
        """The window of the simulation."""
        return Window(poisson=self.arrivals == "poisson")

    @property
    def final_law(self) -> Law:
        """The law after the capacity was halved; the same without that fault."""
        if self.faults.halved_at_s is None:
            return self.law
        law = self.law
        return replace(law, service_s=2 * law.service_s, each_s=2 * law.each_s)


CASES = (
    Case("serial 20", Law(service_s=0.05, queue=100)),
    Case("serial exp", Law(service_s=0.01, exponential=True, queue=10_000), "poisson"),
    Case("serial exp short", Law(service_s=0.005, exponential=True, queue=10), "poisson"),
    Case("4 workers", Law(workers=4, service_s=0.02, queue=4)),
    Case("batch 8 short", Law(batch=8, delay_s=0.01, service_s=0.04, queue=8)),
    Case(
        "batch 8 cost",
        Law(workers=2, batch=8, delay_s=0.02, service_s=0.02, each_s=0.0025, queue=100),
        "poisson",
    ),
    Case("batch 8 fast", Law(workers=4, batch=8, service_s=0.016, queue=1000)),
    Case("batch 64 short", Law(batch=64, service_s=0.25, queue=64)),
    Case(
        "batch 64 cost",
        Law(workers=2, batch=64, delay_s=0.05, service_s=0.04, each_s=0.0025, queue=10_000),
        "poisson",
    ),
    Case("batch 64 fast", Law(workers=2, batch=64, delay_s=0.1, service_s=0.128, queue=1000)),
    Case(
        "batch 64 exp",
        Law(workers=4, batch=64, delay_s=0.01, service_s=0.25, exponential=True, queue=10_000),
        "poisson",
    ),
    Case(
        "batch 64 slow",
        Law(batch=64, delay_s=0.1, service_s=0.1, each_s=0.00625, queue=128),
        "poisson",
    ),
)

#: Cases for the other methods too: a short queue, a long queue, and random service times.
COMPARED = ("batch 8 short", "batch 64 fast", "serial exp")

_FAULTY = Law(workers=2, batch=8, service_s=0.08, queue=100)

FAULT_CASES = (
    Case(
        "one in 500 fails",
        _FAULTY,
        faults=Faults(fail_every=500),
        expects="no rate, and the reason names status 500",
    ),
    Case(
        "stall",
        _FAULTY,
        faults=Faults(stall_at_s=12, stall_s=2, wait_for_arm=True),
        expects="no window that contains the stall passes",
    ),
    Case(
        "halved",
        _FAULTY,
        faults=Faults(halved_at_s=15, wait_for_arm=True),
        expects="at most 3 % above the new rate",
    ),
    Case(
        "drift",
        _FAULTY,
        faults=Faults(slower_per_s=0.01, wait_for_arm=True),
        expects="reported as a warning, or at most 3 % above the rate at the end",
    ),
)


def whole_product() -> tuple[Case, ...]:
    """Return every law with every batch size, queue and kind of arrivals."""
    shapes = {"constant": (0.0, False), "exponential": (0.0, True), "cost": (0.5, False)}
    sizes = {1: (1, 0.01), 8: (2, 0.04), 64: (2, 0.128)}
    cases = []
    for (shape, (share, exponential)), (
        batch,
        (workers, full_s),
    ), batches, arrivals in itertools.product(
        shapes.items(), sizes.items(), (1, 10, 0), ("constant", "poisson")
    ):
        law = Law(
            workers=workers,
            batch=batch,
            delay_s=full_s / 4 if batch > 1 else 0.0,
            service_s=(1 - share) * full_s,
            each_s=share * full_s / batch,
            exponential=exponential,
            queue=batches * batch or 10_000,
        )
        cases.append(Case(f"{shape} {batch} {law.queue} {arrivals}", law, arrivals))
    return tuple(cases)
