"""One load generator process: takes a schedule, returns a Measurement."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress

from loadgen.connection import connections_to
from loadgen.dispatch import MAX_OUTSTANDING, ClosedLoop, Dispatcher, OpenLoop
from loadgen.errors import GeneratorDefectError
from loadgen.measurement import Load, Measurement
from loadgen.payloads import Payload, mix
from loadgen.schedule import Closed, Share, due_times
from loadgen.tls import Tls
from loadgen.window import Window

_PRIORITY = -10


class Client:
    """Drives one URL from one process. All methods are coroutines, so that a fleet can call them.

    Args:
        payloads: the requests, sent as a seeded mix.
        url: receives every request whose payload has no path.
        cores: cores that this process may use; any if empty.
        fast: False for a plain aiohttp session at several times the CPU a request.
    """

    def __init__(
        self,
        payloads: Sequence[Payload],
        url: str = "",
        cores: Collection[int] = (),
        fast: bool = True,
    ):
        if cores:
            # Each thread has its affinity, and some exist already.
            for thread in os.listdir("/proc/self/task"):
                os.sched_setaffinity(int(thread), cores)
        # Imported objects are never garbage; scanning them would delay sends by 50 ms.
        gc.collect()
        gc.freeze()
        self._payloads, self._url, self._fast = payloads, url, fast
        self._tls: Tls | None = None
        self._window: Window | None = None
        self._dispatcher: Dispatcher | None = None

    async def set_target(self, url: str, tls: Tls | None = None) -> None:
        """Drive this URL from now on, at normal priority.

        Args:
            tls: how the certificate of an https URL is checked; by the system's if None.
        """
        self._url, self._tls = url, tls
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 0)

    async def clock(self) -> float:
        """Return this process's time, seconds since an arbitrary instant."""
        return time.perf_counter()

    async def raise_priority(self) -> bool:
        """Raise this thread's priority; return False if that is not permitted."""
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _PRIORITY)
        except OSError:
            return False
        return True

    async def run(
        self, load: Load, share: Share = Share(), start: float | None = None
    ) -> Measurement:
        """Offer this process's share of `load`, wait for the answers, and return the measurement.

        Args:
            start: when the window begins, by this process's `clock`; at once if None.

        Raises:
            GeneratorDefectError: an exception that no server causes ended the window.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < min(hard, 2 * MAX_OUTSTANDING):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * MAX_OUTSTANDING), hard))
        requests, schedule = mix(self._payloads, share), load.schedule
        dispatcher: Dispatcher
        if isinstance(schedule, Closed):
            dispatcher = ClosedLoop(requests, self._url, schedule, share)
        else:
            dues = due_times(schedule, load.duration_s, share)
            dispatcher = OpenLoop(requests, self._url, dues)
        ssl = self._tls.context() if self._tls else True
        async with connections_to(self._url, self._payloads, dispatcher, self._fast, ssl) as poster:
            if start is not None:
                await asyncio.sleep(start - time.perf_counter())
            self._window, self._dispatcher = Window(load, start), dispatcher
            try:
                await dispatcher.run(self._window, poster)
                return self._window.result()
            except Exception as error:
                # Counted as a failure, a defect would be blamed on the server.
                raise GeneratorDefectError(error) from error
            finally:
                self._window = self._dispatcher = None

    async def snapshot(self) -> Measurement | None:
        """Return the window so far; None if none is open."""
        return self._window.result() if self._window else None

    async def stop(self) -> None:
        """Schedule nothing more; outstanding requests are still awaited."""
        if self._dispatcher is not None:
            self._dispatcher.stop()
