"""The stub server of the benchmarks, with the settings that most tests need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.law import Faults, Law
from benchmarks.stub import running_stub


@contextmanager
def stub(
    workers: int = 1,
    batch: int = 1,
    service_s: float = 0.01,
    queue: int = 1000,
    fail_every: int = 0,
    reset_every: int = 0,
) -> Iterator[str]:
    """Run a stub and yield its URL."""
    law = Law(workers=workers, batch=batch, service_s=service_s, queue=queue)
    with running_stub(law, Faults(fail_every=fail_every, reset_every=reset_every)) as server:
        yield server.url
