"""Measurement windows with the metrics of the server and the host."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

from loadgen.host import host_id
from loadgen.measurement import Load, LoadGenerator, Measurement, Until
from search.trial.cpu_times import CpuTimes
from serving.metrics import ServerWindow
from serving.server import TorchServe

#: An `asyncio.Lock` that trials on the same host share, or a context that does nothing.
Turn = AbstractAsyncContextManager[None, bool | None]


@dataclass(frozen=True)
class WindowObservation:
    """The metrics of server and host in a window; attached to its `Measurement`.

    Attributes:
        server: TorchServe's metrics; None if it was too busy to report them.
        steal, other_cpu: see `CpuShares`.
    """

    server: ServerWindow | None
    steal: float = 0.0
    other_cpu: float = 0.0


def observation_of(measurement: Measurement) -> WindowObservation | None:
    """Return the observation that is attached to a window; None without one."""
    attached = measurement.observation
    return attached if isinstance(attached, WindowObservation) else None


@dataclass(frozen=True)
class WindowSummary:
    """The main figures of a window.

    Attributes:
        offered_rps: offered rate; None in a closed loop.
        answered_rps: rate of correct answers.
        failed: requests that were sent but not answered correctly in time.
        p99_s: p99 latency in seconds; None without a request.
    """

    offered_rps: float | None
    answered_rps: float
    failed: int
    p99_s: float | None


@dataclass(frozen=True)
class Phase:
    """The current phase of a trial.

    Attributes:
        rate_rps: offered rate; 0 without one.
        left_s: expected time until the end of the trial, seconds; None as long as the speed of
            the server is unknown.
    """

    name: str
    rate_rps: float = 0.0
    left_s: float | None = None


#: Receives each phase when it begins, and each window when it ends.
TrialProgress = Callable[[Phase | WindowSummary], None]


class ObservedGenerator:
    """A load generator whose windows have the server's metrics attached.

    Args:
        turn: held while a window is open.
        progress: receives the summary of each window.
        mix: models that the requests are for; only the tuned one if empty.
    """

    def __init__(
        self,
        server: TorchServe,
        generator: LoadGenerator,
        turn: Turn,
        progress: TrialProgress,
        mix: Sequence[str] = (),
    ):
        self._server, self._generator, self._turn = server, generator, turn
        self._progress = progress
        self._models = mix or (server.site.archive.name,)
        self.windows: list[Measurement] = []

    async def measure(self, load: Load, until: Until | None = None) -> Measurement:
        """Offer a load; stop if the server fails.

        Raises:
            ServerError: the server failed during the window.
        """
        async with self._turn:
            before, started = await self._server.counters(self._models), time.monotonic()
            cpu, server_s = CpuTimes.now(), self._server.cpu_s()
            measured = await self._server.guard(self._generator.measure(load, until))
            # The counts of this host do not include load generators on other hosts.
            own_s = self._server.cpu_s() - server_s + measured.client_cpu_s.get(host_id(), 0.0)
            shares = CpuTimes.now().shares_since(cpu, own_s)
            after = await self._server.counters(self._models)
            elapsed_s = time.monotonic() - started
        has_others = len(self._models) > 1 or measured.background
        answered = measured.succeeded if has_others else None
        server = after.since(before, elapsed_s, answered) if before and after else None
        window = replace(
            measured, observation=WindowObservation(server, shares.steal, shares.other_cpu)
        )
        self.windows.append(window)
        self._progress(
            WindowSummary(
                offered_rps=window.load.rate_rps,
                answered_rps=round(window.goodput_rps, 3),
                failed=window.failed,
                p99_s=window.latency.quantile(0.99),
            )
        )
        return window

    async def add_capacity(self, limited: Measurement) -> str | None:
        """See `LoadGenerator.add_capacity`."""
        return await self._generator.add_capacity(limited)
