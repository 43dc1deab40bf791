"""Load generator processes as one generator: they share the load, start together, and merge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from loadgen.errors import GeneratorLostError
from loadgen.measurement import BUSY_CPU, STARVED, Load, Measurement, Until, merge
from loadgen.schedule import Share
from loadgen.tls import Tls

_CHECK_S = 0.25
_CLOCK_READINGS = 5
#: Time from the agreement on a start to the start, without the travel time of messages.
_LEAD_S = 0.02
#: A process that does not answer for this long, beyond what a call takes, is lost. On a busy
#: host a new process takes seconds to start.
_ANSWER_TIMEOUT_S = 60.0


class Process(Protocol):
    """A `Client` that runs elsewhere."""

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the `Client`.

        Raises:
            GeneratorLostError: the process is gone.
        """
        ...

    def end(self) -> None:
        """End the process."""
        ...


class Fleet:
    """Load generator processes that drive one URL after another.

    Args:
        spawn: starts the index-th process.
        processes: number of processes at first.
        max_processes: greatest number of processes, if fewer cannot offer the load.

    Raises (by `measure`):
        GeneratorLostError: a process ended or does not answer; the next `measure` starts all of
            them again.
    """

    def __init__(self, spawn: Callable[[int], Process], processes: int = 1, max_processes: int = 1):
        self._spawn, self._process_count = spawn, processes
        self._max_processes = max(processes, max_processes)
        self._url = ""
        self._tls: Tls | None = None
        self._processes: list[Process] = []
        self._priority_raised = False

    async def set_target(self, url: str, tls: Tls | None = None) -> None:
        """Drive this URL from now on; replace lost processes.

        Args:
            tls: how the certificate of an https URL is checked; by the system's if None.
        """
        self._url, self._tls, self._priority_raised = url, tls, False
        try:
            await self._call_all("set_target", url, tls)
        except GeneratorLostError:
            self.close()
        await self._start_missing()

    async def measure(self, load: Load, until: Until | None = None) -> Measurement:
        """Offer `load` from all processes; end early once `until` is true of their sum."""
        try:
            await self._start_missing()
            starts = await self._common_start()
            window = asyncio.create_task(self._window(load, starts))
            try:
                await self._watch(window, until)
                return await window
            finally:
                window.cancel()
        except BaseException:
            # A window must not continue beside the next one.
            self.close()
            raise

    async def _window(self, load: Load, starts: list[float]) -> Measurement:
        """Run one window in all processes and merge their measurements."""
        count, duration_s = len(starts), load.duration_s + load.timeout_s
        parts = await asyncio.gather(
            *[
                _call(process, "run", load, Share(index, count), start, duration_s=duration_s)
                for index, (process, start) in enumerate(zip(self._processes, starts, strict=True))
            ]
        )
        return merge(parts)

    async def _watch(self, window: asyncio.Task[Measurement], until: Until | None) -> None:
        while not window.done():
            await asyncio.wait([window], timeout=_CHECK_S if until else None)
            if until and not window.done():
                parts = await self._call_all("snapshot")
                if all(parts) and not window.done() and until(merge(parts)):
                    await self._call_all("stop")
                    until = None

    async def add_capacity(self, limited: Measurement) -> str | None:
        """Add a process if the generator was CPU-bound; raise its priority if it was starved.

        A large batch, whose answers arrive all at once, also makes it CPU-bound.
        """
        starved = limited.client_run_delay > STARVED and limited.client_cpu < BUSY_CPU
        if starved and await self._raise_priority():
            return "load generator processes of a higher priority"
        if self._process_count < self._max_processes:
            self._process_count += 1
            return f"{self._process_count} load generator processes"
        return (
            "load generator processes of a higher priority"
            if await self._raise_priority()
            else None
        )

    async def _raise_priority(self) -> bool:
        if not self._priority_raised:
            with suppress(GeneratorLostError):
                self._priority_raised = all(await self._call_all("raise_priority"))
                return self._priority_raised
        return False

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.end()
        self._processes = []

    async def _start_missing(self) -> None:
        """Start processes up to their number, at the current target and priority."""
        new = [self._spawn(index) for index in range(len(self._processes), self._process_count)]
        self._processes += new
        await asyncio.gather(
            *[_call(process, "set_target", self._url, self._tls) for process in new]
        )
        if self._priority_raised:
            await asyncio.gather(*[_call(process, "raise_priority") for process in new])

    async def _common_start(self) -> list[float]:
        """Return one instant a little ahead, by each process's own clock."""
        readings = await asyncio.gather(*[_read_clock(process) for process in self._processes])
        ahead_s = _LEAD_S + 2 * max(round_trip_s for _, round_trip_s in readings)
        start = time.perf_counter() + ahead_s
        return [start + offset_s for offset_s, _ in readings]

    async def _call_all(self, method: str, *arguments: Any) -> list[Any]:
        return await asyncio.gather(
            *[_call(process, method, *arguments) for process in self._processes]
        )


async def _call(process: Process, method: str, *arguments: Any, duration_s: float = 0.0) -> Any:
    try:
        async with asyncio.timeout(duration_s + _ANSWER_TIMEOUT_S):
            return await process.call(method, *arguments)
    except TimeoutError:
        raise GeneratorLostError(f"it did not answer for {_ANSWER_TIMEOUT_S:.0f} s") from None


async def _read_clock(process: Process) -> tuple[float, float]:
    """Return how far a process's clock is ahead, and the round trip of the reading; seconds.

    The quickest of several readings has the least error, at most half its round trip.
    """
    readings = []
    for _ in range(_CLOCK_READINGS):
        sent = time.perf_counter()
        remote = await _call(process, "clock")
        received = time.perf_counter()
        readings.append((received - sent, remote - (sent + received) / 2))
    round_trip_s, offset_s = min(readings)
    return offset_s, round_trip_s
