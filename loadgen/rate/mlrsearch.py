"""MLRsearch (RFC 9971) as the bracketing algorithm."""

from __future__ import annotations

import asyncio
import concurrent.futures

import MLRsearch

from loadgen.rate.search import Search
from loadgen.rate.verdict import Verdict


class _OutOfTime(Exception):
    pass


class _Measurer(MLRsearch.AbstractMeasurer):
    """MLRsearch's view of a generator: one blocking method, called in MLRsearch's thread."""

    def __init__(self, search: Search, loop: asyncio.AbstractEventLoop):
        self._search, self._loop = search, loop
        self._waiting: concurrent.futures.Future[Verdict] | None = None
        self._closed = False

    def close(self) -> None:
        """Let the thread end at once, wherever it waits."""
        self._closed = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def _offer(self, rate_rps: float) -> Verdict:
        if self._closed:
            raise _OutOfTime
        return await self._search._probe("narrowing", rate_rps)

    def measure(
        self, intended_duration: float, intended_load: float
    ) -> MLRsearch.MeasurementResult:
        if self._closed or (self._search._probes and self._search.is_late()):
            raise _OutOfTime
        self._waiting = asyncio.run_coroutine_threadsafe(self._offer(intended_load), self._loop)
        verdict = self._waiting.result()
        lost = 0.0
        if verdict is not Verdict.PASS:
            # What the server could not take tells MLRsearch where to look next; a window that
            # did not pass must not look as if all but nothing had been lost.
            lost = self._search._lost()
        count = 1_000_000
        return MLRsearch.MeasurementResult(
            intended_duration=intended_duration,
            intended_load=intended_load,
            offered_count=count,
            loss_count=round(count * lost),
        )
