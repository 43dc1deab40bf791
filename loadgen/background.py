"""A load that other models of the server get while one is measured."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from loadgen.fleet import Fleet
from loadgen.measurement import Load, LoadGenerator, Measurement, Until, added
from loadgen.schedule import Constant, Poisson
from loadgen.tls import Tls


@dataclass(frozen=True)
class BackgroundLoad:
    """The load of one model.

    Attributes:
        model: its name.
        rate_rps: its rate, requests/s.
        payloads: its requests with their paths, or a reference to them in Ray's object store.
        is_poisson: whether arrivals are exponentially distributed, else constant.
        seed: of the arrivals.
    """

    model: str
    rate_rps: float
    payloads: Any
    is_poisson: bool = False
    seed: int = 0

    def beside(self, load: Load) -> Load:
        """Return the load of a window that lasts at least as long as that of another load."""
        poisson = Poisson(self.rate_rps, self.seed)
        schedule = poisson if self.is_poisson else Constant(self.rate_rps)
        # Outstanding requests of the other load are awaited beyond its duration.
        return Load(schedule, load.duration_s + 2 * load.timeout_s, load.timeout_s)


class Background:
    """Background loads, each with a fleet. It offers nothing outside of a window.

    Args:
        loads: one for each fleet.
        fleets: of one load generator process each.
    """

    def __init__(self, loads: Sequence[BackgroundLoad] = (), fleets: Sequence[Fleet] = ()):
        self._parts = list(zip(loads, fleets, strict=True))

    async def set_target(self, url: str, tls: Tls | None = None) -> None:
        """Drive the server of this URL from now on; see `Fleet.set_target`."""
        await asyncio.gather(*[fleet.set_target(url, tls) for _, fleet in self._parts])

    def around(self, generator: LoadGenerator) -> LoadGenerator:
        """Return a generator in whose windows the background is offered too."""
        return _WithBackground(generator, self) if self._parts else generator

    def close(self) -> None:
        """End the load generator processes."""
        for _, fleet in self._parts:
            fleet.close()

    def start(self, load: Load, ended: asyncio.Event) -> dict[str, asyncio.Task[Measurement]]:
        """Begin a window beside that of another load; it ends soon after the event is set."""
        return {
            each.model: asyncio.create_task(
                fleet.measure(each.beside(load), lambda so_far: ended.is_set())
            )
            for each, fleet in self._parts
        }


class _WithBackground:
    """See `Background.around`."""

    def __init__(self, generator: LoadGenerator, background: Background):
        self._generator, self._background = generator, background

    async def measure(self, load: Load, until: Until | None = None) -> Measurement:
        """See `LoadGenerator.measure`; failed requests of the background fail the window."""
        ended = asyncio.Event()
        windows = self._background.start(load, ended)
        try:
            measured = await self._generator.measure(load, until)
            ended.set()
            found = await asyncio.gather(*windows.values())
        finally:
            for window in windows.values():
                window.cancel()
            await asyncio.gather(*windows.values(), return_exceptions=True)
        return with_background(measured, dict(zip(windows, found, strict=True)))

    async def add_capacity(self, limited: Measurement) -> str | None:
        """See `LoadGenerator.add_capacity`."""
        return await self._generator.add_capacity(limited)


def with_background(measured: Measurement, background: Mapping[str, Measurement]) -> Measurement:
    """Return a window with those of its background, by model.

    At an offered rate, each failed request of the background is one more failed request: the rate
    is not sustained. In a closed loop, which overloads the server on purpose, it is not.
    """
    errors = dict(measured.errors)
    failed = 0
    if measured.load.rate_rps is not None:
        for model, window in background.items():
            failed += window.failed
            for cause, count in window.errors.items():
                errors[f"{cause} of the background model {model}"] = count
    cpu_s = measured.client_cpu_s
    for window in background.values():
        cpu_s = added(cpu_s, window.client_cpu_s)
    return replace(
        measured,
        scheduled=measured.scheduled + failed,
        sent=measured.sent + failed,
        errors=errors,
        client_cpu_s=cpu_s,
        background=background,
    )
