"""Fleets and windows for the tests of the load generator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np

from loadgen.fleet import Fleet
from loadgen.histogram import Histogram
from loadgen.local_process import local_processes
from loadgen.measurement import Load, Measurement
from loadgen.payloads import Payload
from loadgen.schedule import Constant

PAYLOADS = [Payload(b"{}", {"Content-Type": "application/json"}, contains="ok")]


@asynccontextmanager
async def fleet_of(processes: int, max_processes: int = 1) -> AsyncIterator[Fleet]:
    """Yield a fleet of processes on this host; close it at the end."""
    fleet = Fleet(local_processes(PAYLOADS), processes, max_processes)
    try:
        yield fleet
    finally:
        fleet.close()


def late_window(late_s: float, latency_s: float = 0.01, **more: float) -> Measurement:
    """Return a window of 1000 requests, of which 100 were sent `late_s` late."""
    latency, lateness, nothing = Histogram(), Histogram(), np.zeros(1, np.int64)
    latency.record(latency_s, 1000)
    lateness.record(0.0, 900)
    lateness.record(late_s, 100)
    counts = (1000, 1000, 1000, {}, 5.0)
    load = Load(Constant(200), 5.0)
    return Measurement(load, *counts, latency, latency, lateness, nothing, nothing, nothing, **more)
