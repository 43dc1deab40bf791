"""The record of an open window: every time and every result, counted in bounded memory."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from loadgen.bins import Bins
from loadgen.histogram import Histogram
from loadgen.host import host_id
from loadgen.measurement import Group, Load, Measurement, same_length

#: Times that are buffered before they are counted.
_BUFFERED = 8192


class Window:
    """The record of an open window; its clock counts seconds from the window's start.

    Results that have a group are counted for the group too.

    Args:
        start: when the window begins, by `time.perf_counter`; now if None.
    """

    def __init__(self, load: Load, start: float | None = None):
        self.load = load
        self._begun, self._done, self._good = (Bins(load.duration_s) for _ in range(3))
        self._latency, self._service, self._lateness = Histogram(), Histogram(), Histogram()
        # Flat lists of times: arrays cost more to append to.
        self._sends: list[float] = []
        self._answers: defaultdict[str, list[float]] = defaultdict(list)
        self._groups: defaultdict[str, Group] = defaultdict(Group)
        self._sent = self._unsent = self._succeeded = 0
        self._errors: dict[str, int] = {}
        self._span_s: float | None = None
        self._last_answer_s = 0.0
        self._cpu = self._run_delay = 0.0
        self._cpu_s, self._delay_s = thread_times()
        begun = time.perf_counter()
        self._start = begun if start is None else start
        self._start_offset_s = begun - self._start

    def now(self) -> float:
        """Return the time of the window's clock."""
        return time.perf_counter() - self._start

    def sent(self, due: float, now: float) -> None:
        """Count a request that was due and is sent now."""
        self._sends.extend((due, now))

    def unsent(self) -> None:
        """Count a request that was due and is not sent."""
        self._unsent += 1
        self._latency.record(self.load.timeout_s)

    def take_back_sent(self) -> None:
        """Count a request as unsent that was counted as sent and did not leave this process."""
        self._sent -= 1
        self._done.add_one(self.now())
        self.unsent()

    def succeeded(self, due: float, sent: float, group: str = "") -> float:
        """Count a correct answer that arrives now, and return the time.

        An answer after the timeout has failed.
        """
        now = time.perf_counter() - self._start
        if now - due > self.load.timeout_s:
            self.failed(due, "timeout", group)
        else:
            self._answers[group].extend((due, sent, now))
        return now

    def failed(self, due: float, cause: str, group: str = "") -> None:
        """Count a request that failed now."""
        now = self.now()
        latency_s = max(now - due, self.load.timeout_s)
        self._errors[cause] = self._errors.get(cause, 0) + 1
        self._latency.record(latency_s)
        self._done.add_one(now)
        if group:
            self._groups[group].latency.record(latency_s)
            self._groups[group].errors[cause] += 1

    def count_buffered(self) -> None:
        """Count the buffered times if there are many; call this several times a second."""
        if len(self._sends) + sum(map(len, self._answers.values())) > _BUFFERED:
            self._count_all_buffered()

    def _count_all_buffered(self) -> None:
        """Count the buffered times; one by one that would cost more than sending."""
        due, sent = np.array(self._sends).reshape(-1, 2).T
        self._sent += len(due)
        self._lateness.record_all(sent - due)
        self._begun.add(sent)
        for group, times in self._answers.items():
            due, sent, answered = np.array(times).reshape(-1, 3).T
            self._succeeded += len(due)
            self._last_answer_s = float(answered.max(initial=self._last_answer_s))
            self._latency.record_all(answered - due)
            self._service.record_all(answered - sent)
            self._done.add(answered)
            self._good.add(answered)
            if group:
                self._groups[group].latency.record_all(answered - due)
        self._sends.clear()
        self._answers.clear()

    def close(self) -> None:
        """End the schedule; only the drain follows."""
        self._cpu, self._run_delay = self._cpu_shares()
        self._span_s = min(self.now(), self.load.duration_s)

    def _cpu_shares(self) -> tuple[float, float]:
        """Return this thread's CPU time and its wait for a core, ÷ the time since the start."""
        cpu_s, delay_s = thread_times()
        elapsed = max(self.now(), 1e-9)
        return (cpu_s - self._cpu_s) / elapsed, (delay_s - self._delay_s) / elapsed

    def result(self) -> Measurement:
        """Return the window so far."""
        self._count_all_buffered()
        span_s = self._span_s if self._span_s is not None else self.now()
        cpu, run_delay = (
            self._cpu_shares() if self._span_s is None else (self._cpu, self._run_delay)
        )
        begun, done, good = same_length(
            bins.counts(span_s) for bins in (self._begun, self._done, self._good)
        )
        return Measurement(
            load=self.load,
            scheduled=self._sent + self._unsent,
            sent=self._sent,
            succeeded=self._succeeded,
            errors=dict(self._errors),
            span_s=span_s,
            latency=self._latency,
            service=self._service,
            lateness=self._lateness,
            begun=begun,
            done=done,
            good=good,
            client_cpu=cpu,
            client_cpu_s={host_id(): cpu * span_s},
            client_run_delay=run_delay,
            start_offset_s=self._start_offset_s,
            last_answer_s=self._last_answer_s,
            groups=dict(self._groups),
        )


def thread_times() -> tuple[float, float]:
    """Return the CPU seconds of this thread, and the seconds that it waited for a core."""
    path = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
    try:
        cpu_ns, delay_ns, _ = path.read_text().split()
    except (OSError, ValueError):
        return time.thread_time(), 0.0
    return int(cpu_ns) / 1e9, int(delay_ns) / 1e9
