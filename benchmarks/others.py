"""Other methods of finding a sustained rate. Each receives a function that offers a rate.

All begin with the capacity that a closed loop estimated. A window passes if no request was lost;
none of the methods observes the backlog.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import MLRsearch

from loadgen.measurement import Measurement

#: Offers a rate (requests per second) for some seconds.
Offer = Callable[[float, float], Awaitable[Measurement]]

_STEPS = 10
_LADDER_WINDOW_S = 5.0
_SHORT_WINDOW_S = 1.0
_MAX_DOUBLINGS = 4
_LOWEST = 0.01


def lost(measurement: Measurement) -> int:
    """Return the number of requests that were due and got no correct answer."""
    return measurement.scheduled - measurement.succeeded


async def ladder(offer: Offer, high_rps: float) -> float | None:
    """Go up in ten equal steps of 5 s, to the first that loses a request."""
    best = None
    for step in range(1, _STEPS + 1):
        rate = high_rps * step / _STEPS
        if lost(await offer(rate, _LADDER_WINDOW_S)):
            break
        best = rate
    return best


async def bisection(offer: Offer, high_rps: float, width: float = 0.05) -> float | None:
    """Bisect between a rate without and a rate with losses, 1 s each."""
    low, high = 0.0, high_rps
    for _ in range(_MAX_DOUBLINGS):
        if lost(await offer(high, _SHORT_WINDOW_S)):
            break
        low, high = high, 2 * high
    while high - low > width * high and high > _LOWEST * high_rps:
        middle = (low + high) / 2
        if lost(await offer(middle, _SHORT_WINDOW_S)):
            high = middle
        else:
            low = middle
    return low or None


async def ndr(offer: Offer, high_rps: float, limit_s: float = 150.0) -> float | None:
    """Search with the MLRsearch package at FD.io's settings for a rate without drops.

    If limit_s is over before the search ends, return the highest rate that mostly passed below
    the lowest that mostly lost.
    """
    goal = MLRsearch.SearchGoal(
        loss_ratio=0.0,
        exceed_ratio=0.5,
        relative_width=0.005,
        initial_trial_duration=1.0,
        final_trial_duration=1.0,
        duration_sum=21.0,
        fail_fast=False,
    )
    config = MLRsearch.Config()
    config.goals = [goal]
    # Before max_load: each is checked against the other's value. MLRsearch never ends if the
    # range is exactly one width.
    config.min_load = 0.05 * high_rps
    config.max_load = 2 * high_rps
    config.search_duration_max = 10 * limit_s
    config.warmup_duration = 0.0
    measurer = _Measurer(offer, limit_s)
    search = MLRsearch.MultipleLossRatioSearch(config)
    try:
        results = await asyncio.to_thread(search.search, measurer, lambda _: None)
    except TimeoutError:
        return measurer.best_rps()
    finally:
        measurer.closed = True
    rate = results[goal].conditional_throughput
    return None if rate is None else float(rate)


class _Measurer(MLRsearch.AbstractMeasurer):
    """MLRsearch's view of `offer`: a blocking method, called in a separate thread."""

    def __init__(self, offer: Offer, limit_s: float):
        self._offer, self._loop = offer, asyncio.get_running_loop()
        self._deadline = time.monotonic() + limit_s
        self._votes: dict[float, int] = {}
        self.closed = False

    def measure(
        self, intended_duration: float, intended_load: float
    ) -> MLRsearch.MeasurementResult:
        if self.closed or time.monotonic() > self._deadline:
            raise TimeoutError
        window = asyncio.run_coroutine_threadsafe(
            _awaited(self._offer(intended_load, intended_duration)), self._loop
        )
        measured = window.result()
        vote = -1 if lost(measured) else 1
        self._votes[intended_load] = self._votes.get(intended_load, 0) + vote
        return MLRsearch.MeasurementResult(
            intended_duration=intended_duration,
            intended_load=intended_load,
            offered_count=max(measured.scheduled, 1),
            loss_count=lost(measured),
        )

    def best_rps(self) -> float | None:
        upper = min((r for r, vote in self._votes.items() if vote < 0), default=float("inf"))
        return max((r for r, vote in self._votes.items() if vote > 0 and r < upper), default=None)


async def _awaited(window: Awaitable[Measurement]) -> Measurement:
    return await window
