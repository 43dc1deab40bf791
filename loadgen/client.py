"""One load generator process: takes a schedule, returns a Measurement."""

from __future__ import annotations

import asyncio
import errno
import gc
import math
import os
import resource
import threading
import time
from array import array
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import aiohttp
import numpy as np
import numpy.typing as npt
from yarl import URL

from loadgen.connection import Poster, connections_to
from loadgen.errors import GeneratorDefectError
from loadgen.histogram import Histogram
from loadgen.measurement import BIN_S, Load, Measurement
from loadgen.payloads import Payload, mix
from loadgen.schedule import Closed, Share, due_times
from loadgen.tls import Tls

#: If more requests than this are outstanding in one process, further ones count as unsent.
MAX_OUTSTANDING = 8000
#: A late sender yields after this many requests, so that answers are read.
_YIELD_EVERY = 32
#: Times that are buffered before they are counted.
_BUFFERED = 8192
_PRIORITY = -10
#: This process ran out of files or ports: the request was not sent.
_OWN_LIMITS = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL)


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
        self._window: _Window | None = None

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
        ssl = self._tls.context() if self._tls else True
        async with connections_to(self._url, self._payloads, self._fast, ssl) as poster:
            if start is not None:
                await asyncio.sleep(start - time.perf_counter())
            window = self._window = _Window(load, start)
            requests = mix(self._payloads, share)
            try:
                if isinstance(load.schedule, Closed):
                    await self._closed(window, poster, requests, load.schedule, share)
                else:
                    dues = due_times(load.schedule, load.duration_s, share)
                    await self._open(window, poster, requests, dues)
                if window.defect is not None:
                    raise window.defect
                return window.result(final=True)
            except Exception as error:
                # Counted as a failure, a defect would be blamed on the server.
                raise GeneratorDefectError(error) from error
            finally:
                self._window = None

    async def snapshot(self) -> Measurement | None:
        """Return the window so far; None if none is open."""
        return self._window.result() if self._window else None

    async def stop(self) -> None:
        """Schedule nothing more; outstanding requests are still awaited."""
        if self._window is not None:
            self._window.stop.set()

    async def _open(
        self, window: _Window, poster: Poster, requests: Iterator[Payload], dues: Iterator[float]
    ) -> None:
        tasks: set[asyncio.Task[None]] = set()
        for count, due in enumerate(dues):
            wait_s = due - window.now()
            if wait_s <= 0 and count % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
            while wait_s > 0 and not window.stop.is_set():
                await window.wait_for_stop(wait_s)
                wait_s = due - window.now()
            if window.stop.is_set():
                break
            window.scheduled()
            if len(tasks) >= MAX_OUTSTANDING:
                window.count_unsent()
                continue
            task = asyncio.create_task(self._request(window, poster, next(requests), due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        else:
            await window.wait_for_stop(window.load.duration_s - window.now())
        window.close()
        while tasks:
            await asyncio.wait(tasks)

    async def _closed(
        self,
        window: _Window,
        poster: Poster,
        requests: Iterator[Payload],
        schedule: Closed,
        share: Share,
    ) -> None:
        users, left = share.of(schedule.users), math.inf
        if schedule.requests is not None:
            # Only a process that has a user can send.
            busy = min(share.count, schedule.users)
            left = Share(share.index, busy).of(schedule.requests) if users else 0

        async def user() -> None:
            nonlocal left
            while left > 0 and not window.stop.is_set():
                left -= 1
                due = window.now()
                window.scheduled()
                await self._request(window, poster, next(requests), due)
            if left <= 0:
                window.stop.set()

        tasks = [asyncio.create_task(user()) for _ in range(users)]
        if left <= 0:
            window.stop.set()
        await window.wait_for_stop(window.load.duration_s)
        window.stop.set()
        window.close()
        if tasks:
            await asyncio.wait(tasks)

    async def _request(self, window: _Window, poster: Poster, payload: Payload, due: float) -> None:
        sent = window.sent(due)
        try:
            status, body = await poster.post(payload, window.load.timeout_s + due - sent)
            if status not in payload.status:
                cause = self._status_cause(status, payload)
            else:
                cause = "" if payload.accepts(body) else "wrong body"
        except TimeoutError:
            cause = "timeout"
        except (OSError, aiohttp.ClientError) as error:
            if isinstance(error, OSError) and error.errno in _OWN_LIMITS:
                window.take_back_sent()
                return
            cause = failure_cause(error)
        except Exception as error:
            window.take_back_sent()
            window.defect = error
            window.stop.set()
            return
        if cause:
            window.failed(due, cause)
            # A closed loop whose requests are refused at once must not spin.
            await asyncio.sleep(0.01)
        else:
            window.succeeded(due, sent)

    def _status_cause(self, status: int, payload: Payload) -> str:
        """Return the name under which a status is counted; an unknown path is named."""
        if status not in (404, 405):
            return f"status {status}"
        path = payload.path or URL(self._url).raw_path
        return f"status {status} for {payload.method} {path.partition('?')[0]}"


class _Window:
    """The record of an open window; the only place that reads the clock."""

    def __init__(self, load: Load, start: float | None = None):
        self.load = load
        self.stop = asyncio.Event()
        #: An exception that no server causes.
        self.defect: Exception | None = None
        bins = int((load.duration_s + BIN_S) / BIN_S) + 1
        self._begun, self._done, self._good = (np.zeros(bins, np.int64) for _ in range(3))
        self._latency, self._service, self._lateness = Histogram(), Histogram(), Histogram()
        self._sends, self._answers = array("d"), array("d")
        self._scheduled = self._sent = self._succeeded = 0
        self._errors: dict[str, int] = {}
        self._span_s: float | None = None
        self._last_answer_s = 0.0
        self._cpu = self._run_delay = 0.0
        self._cpu_s, self._delay_s = _thread_times()
        begun = time.perf_counter()
        self._start = begun if start is None else start
        self._start_offset_s = begun - self._start

    def now(self) -> float:
        return time.perf_counter() - self._start

    async def wait_for_stop(self, seconds: float) -> None:
        """Sleep for `seconds`, or until the window is stopped."""
        if seconds > 0.05:
            try:
                await asyncio.wait_for(self.stop.wait(), seconds)
            except TimeoutError:
                return
        elif seconds > 0:
            # Timers count milliseconds and may round down: no request is sent before its due time.
            await asyncio.sleep(math.ceil(seconds * 1000) / 1000)

    def scheduled(self) -> None:
        self._scheduled += 1

    def sent(self, due: float) -> float:
        now = time.perf_counter() - self._start
        self._sent += 1
        self._sends.append(due)
        self._sends.append(now)
        if len(self._sends) > _BUFFERED:
            self._count_buffered()
        return now

    def count_unsent(self) -> None:
        """Count a request that was due and is not sent."""
        self._latency.record(self.load.timeout_s)

    def take_back_sent(self) -> None:
        """Take back a request that did not leave this process."""
        self._sent -= 1
        self._count(self._done, self.now())
        self.count_unsent()

    def succeeded(self, due: float, sent: float) -> None:
        now = self.now()
        if now - due > self.load.timeout_s:
            self.failed(due, "timeout")
            return
        self._succeeded += 1
        self._answers.extend((due, sent, now))
        if len(self._answers) > _BUFFERED:
            self._count_buffered()

    def _count_buffered(self) -> None:
        """Count the buffered times; one by one that would cost more than sending."""
        due, sent = np.array(self._sends).reshape(-1, 2).T
        self._lateness.record_all(sent - due)
        self._count_all(self._begun, sent)
        due, sent, answered = np.array(self._answers).reshape(-1, 3).T
        self._last_answer_s = float(answered.max(initial=self._last_answer_s))
        self._latency.record_all(answered - due)
        self._service.record_all(answered - sent)
        self._count_all(self._done, answered)
        self._count_all(self._good, answered)
        self._sends, self._answers = array("d"), array("d")

    def failed(self, due: float, cause: str) -> None:
        now = self.now()
        self._errors[cause] = self._errors.get(cause, 0) + 1
        self._latency.record(max(now - due, self.load.timeout_s))
        self._count(self._done, now)

    def close(self) -> None:
        """End the schedule; only the drain follows."""
        self._cpu, self._run_delay = self._cpu_shares()
        self._span_s = min(self.now(), self.load.duration_s)

    def _cpu_shares(self) -> tuple[float, float]:
        """Return this thread's CPU time and its wait for a core, ÷ the time since the start."""
        cpu_s, delay_s = _thread_times()
        elapsed = max(self.now(), 1e-9)
        return (cpu_s - self._cpu_s) / elapsed, (delay_s - self._delay_s) / elapsed

    def result(self, final: bool = False) -> Measurement:
        self._count_buffered()
        span_s = self._span_s if self._span_s is not None else self.now()
        cpu, run_delay = (
            self._cpu_shares() if self._span_s is None else (self._cpu, self._run_delay)
        )
        copy = (lambda bins: bins) if final else (lambda bins: bins.copy())
        return Measurement(
            load=self.load,
            scheduled=self._scheduled,
            sent=self._sent,
            succeeded=self._succeeded,
            errors=dict(self._errors),
            span_s=span_s,
            latency=self._latency,
            service=self._service,
            lateness=self._lateness,
            begun=copy(self._begun),
            done=copy(self._done),
            good=copy(self._good),
            client_cpu=cpu,
            client_cpu_s=cpu * span_s,
            client_run_delay=run_delay,
            start_offset_s=self._start_offset_s,
            last_answer_s=self._last_answer_s,
        )

    @staticmethod
    def _count(bins: npt.NDArray[np.int64], at: float) -> None:
        index = int(at / BIN_S)
        if index < len(bins):
            bins[index] += 1

    @staticmethod
    def _count_all(bins: npt.NDArray[np.int64], at: npt.NDArray[np.float64]) -> None:
        index = (at / BIN_S).astype(np.int64)
        bins += np.bincount(index[index < len(bins)], minlength=len(bins))


def failure_cause(error: Exception) -> str:
    """Return the name under which a failed post is counted."""
    match error:
        case aiohttp.ClientSSLError():
            return f"TLS: {getattr(error, 'certificate_error', error.os_error)}"
        case aiohttp.ClientConnectorError():
            return (
                "connection refused" if error.errno == 111 else f"no connection: {error.strerror}"
            )
        case aiohttp.ServerDisconnectedError():
            return "disconnected"
        case aiohttp.ClientPayloadError():
            return "incomplete body"
        case aiohttp.ClientResponseError():
            return "malformed answer"
        case ConnectionResetError() | aiohttp.ClientOSError():
            return "reset"
    return type(error).__name__


def _thread_times() -> tuple[float, float]:
    """Return the CPU seconds of this thread, and the seconds that it waited for a core."""
    path = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
    try:
        cpu_ns, delay_ns, _ = path.read_text().split()
    except (OSError, ValueError):
        return time.thread_time(), 0.0
    return int(cpu_ns) / 1e9, int(delay_ns) / 1e9
