"""MLRsearch (RFC 9971) as the bracketing algorithm."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Awaitable, Callable

import MLRsearch

#: Requests per reported window; MLRsearch only uses the ratio of lost to offered.
_OFFERED = 1_000_000


class OutOfTimeError(Exception):
    """The search has no time for another window."""


class Measurer(MLRsearch.AbstractMeasurer):
    """MLRsearch's view of a load generator: one blocking method, called in MLRsearch's thread.

    Args:
        offer: offers a rate for one window and returns the share of requests that the server
            could not take; 0 if the window passed.
        is_out_of_time: whether no further window may be opened.
        loop: the event loop in which `offer` runs.
    """

    def __init__(
        self,
        offer: Callable[[float], Awaitable[float]],
        is_out_of_time: Callable[[], bool],
        loop: asyncio.AbstractEventLoop,
    ):
        self._offer, self._is_out_of_time, self._loop = offer, is_out_of_time, loop
        self._pending: concurrent.futures.Future[float] | None = None
        self._closed = False

    def close(self) -> None:
        """End MLRsearch's thread at its next or current window."""
        self._closed = True
        if self._pending is not None:
            self._pending.cancel()

    async def _offer_if_open(self, rate_rps: float) -> float:
        if self._closed:
            raise OutOfTimeError
        return await self._offer(rate_rps)

    def measure(
        self, intended_duration: float, intended_load: float
    ) -> MLRsearch.MeasurementResult:
        """Offer a rate; the window's length is chosen by `offer`."""
        if self._closed or self._is_out_of_time():
            raise OutOfTimeError
        self._pending = asyncio.run_coroutine_threadsafe(
            self._offer_if_open(intended_load), self._loop
        )
        lost = self._pending.result()
        return MLRsearch.MeasurementResult(
            intended_duration=intended_duration,
            intended_load=intended_load,
            offered_count=_OFFERED,
            loss_count=round(_OFFERED * lost),
        )


def bracket(
    measurer: Measurer,
    low_rps: float,
    high_rps: float,
    width: float,
    windows: int,
    window_s: float,
    limit_s: float,
) -> None:
    """Bisect between two rates until the bounds are `width` apart. Blocks.

    Args:
        width: relative distance of the bounds.
        windows: windows that must agree on a bound.
        window_s: a window's nominal length, seconds.
        limit_s: MLRsearch's own time limit, seconds.

    Raises:
        OutOfTimeError: raised by the measurer.
    """
    majority = 2 * windows - 1
    goal = MLRsearch.SearchGoal(
        loss_ratio=0.0,
        exceed_ratio=0.5 if majority > 1 else 0.0,
        relative_width=width,
        initial_trial_duration=window_s,
        final_trial_duration=window_s,
        duration_sum=majority * window_s,
        preceding_targets=1,
        fail_fast=False,
    )
    config = MLRsearch.Config()
    config.goals = [goal]
    config.min_load = low_rps  # Before max_load: each is checked against the other's value.
    config.max_load = high_rps
    config.search_duration_max = limit_s
    config.warmup_duration = 0.0
    MLRsearch.MultipleLossRatioSearch(config).search(measurer, debug=lambda _: None)
