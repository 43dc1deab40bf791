"""Tests of the record of a window."""

import gc
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loadgen.measurement import Load
from loadgen.schedule import Closed, Constant
from loadgen.window import Window, thread_times


def test_window_counts_a_late_answer_as_a_timeout() -> None:
    """Deadlines are coarse; the count of timeouts is exact."""
    window = Window(Load(Constant(1), 10.0, timeout_s=20.0))
    for due in (-1.0, -30.0):
        now = window.now()
        window.sent(due, now)
        window.succeeded(due, now)
    measured = window.result()
    assert measured.errors == {"timeout": 1}
    assert measured.succeeded == measured.good.sum() == 1
    assert measured.sent == len(measured.latency) == measured.done.sum() == 2
    worst = measured.latency.quantile(1.0)
    assert worst and worst >= 30


def test_window_needs_no_more_memory_for_a_long_window() -> None:
    def record(window: Window, requests: int) -> int:
        for _ in range(requests):
            due = window.now()
            window.sent(due, due)
            window.succeeded(due, due)
            window.count_buffered()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    window = Window(Load(Closed(64), 600.0))
    tracemalloc.start()
    try:
        few = record(window, 10_000)
        many = record(window, 300_000)
    finally:
        tracemalloc.stop()
    assert many - few < 1_000_000
    assert window.result().succeeded == 310_000


def test_window_counts_unsent_requests() -> None:
    """One was not sent at all; the other was counted as sent, and did not leave the process."""
    window = Window(Load(Constant(1), 10.0, timeout_s=20.0))
    window.sent(0.0, window.now())
    window.unsent()
    window.take_back_sent()
    measured = window.result()
    assert (measured.scheduled, measured.sent, measured.unsent) == (2, 0, 2)
    assert measured.begun.sum() == measured.done.sum() == 1, "the backlog does not grow"
    assert len(measured.latency) == 2


def test_window_counts_the_results_of_each_group() -> None:
    window = Window(Load(Constant(1), 10.0, timeout_s=20.0))
    for due, group in ((-1.0, "cat"), (-3.0, "dog"), (-3.0, "dog"), (-30.0, "dog")):
        window.sent(due, window.now())
        window.succeeded(due, window.now(), group)
    window.count_buffered()
    window.sent(0.0, window.now())
    window.failed(window.now(), "status 503", "cat")
    measured = window.result()
    cat, dog = measured.groups["cat"], measured.groups["dog"]
    assert (cat.ended, cat.failed, cat.errors) == (2, 1, {"status 503": 1})
    assert (dog.ended, dog.failed, dog.errors) == (3, 1, {"timeout": 1})
    assert cat.ended + dog.ended == len(measured.latency) == 5
    assert cat.errors + dog.errors == measured.errors
    assert cat.latency.quantile(0.5) == pytest.approx(1.0, rel=0.1)
    assert dog.latency.quantile(0.5) == pytest.approx(3.0, rel=0.1)


def test_window_without_a_mix_has_no_groups() -> None:
    window = Window(Load(Constant(1), 10.0))
    window.sent(0.0, window.now())
    window.succeeded(0.0, window.now())
    window.sent(0.0, window.now())
    window.failed(0.0, "reset")
    assert window.result().groups == {}


@contextmanager
def spinning(core: int) -> Iterator[None]:
    """Run a process that keeps a core busy."""
    code = f"import os; os.sched_setaffinity(0, [{core}])\nwhile os.getppid() != 1: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as spinner:
        try:
            yield
        finally:
            spinner.kill()


def test_thread_times_include_the_wait_for_a_core() -> None:
    """Two processes spin on one core, so that each waits for the other."""
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("this kernel does not report run delay")
    cores = os.sched_getaffinity(0)
    cpu_s, delay_s = thread_times()
    try:
        os.sched_setaffinity(0, {max(cores)})
        with spinning(max(cores)):
            while thread_times()[1] < delay_s + 0.01:
                pass
    finally:
        os.sched_setaffinity(0, cores)
    assert thread_times()[0] > cpu_s
