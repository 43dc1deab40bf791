"""A background load beside another load, with simulated servers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from loadgen.background import Background, BackgroundLoad
from loadgen.errors import GeneratorLostError
from loadgen.measurement import Load, Measurement, Until
from loadgen.schedule import Closed, Constant, Poisson
from loadgen.tls import Tls
from tests.simulated import SimulatedServers

LOAD = Load(Constant(50), 10.0, timeout_s=2.0)


class BackgroundServers(SimulatedServers):
    """Servers whose window lasts until it is stopped, as that of a fleet does."""

    def __init__(self, service_s: float, **options: Any):
        super().__init__(service_s, **options)
        self.urls: list[str] = []
        self.stopped = self.closed = False

    async def set_target(self, url: str, tls: Tls | None = None) -> None:
        self.urls.append(url)

    async def measure(self, load: Load, until: Until | None = None) -> Measurement:
        measured = await super().measure(load)
        assert until is not None
        while not until(measured):  # noqa: ASYNC110  A fleet polls too.
            await asyncio.sleep(0)
        self.stopped = True
        return measured

    def close(self) -> None:
        self.closed = True


def background_of(servers: BackgroundServers, **options: Any) -> Background:
    load = BackgroundLoad("zoo", 5.0, (), **options)
    return Background([load], [servers])  # type: ignore[list-item]


async def test_background_is_offered_in_each_window_at_its_rate() -> None:
    servers = BackgroundServers(0.01)
    background = background_of(servers)
    await background.set_target("http://server/")
    generator = background.around(SimulatedServers(0.01))
    for load in (LOAD, Load(Closed(4), 5.0)):
        measured = await generator.measure(load)
        window = measured.background["zoo"]
        assert window.load.rate_rps == 5 and window.load.timeout_s == load.timeout_s
        assert window.load.duration_s > load.duration_s + load.timeout_s
        assert measured.errors == {} and servers.stopped
    assert len(servers.calls) == 2 and servers.urls == ["http://server/"]
    background.close()
    assert servers.closed


async def test_background_of_poisson_arrivals_has_its_seed() -> None:
    servers = BackgroundServers(0.01)
    generator = background_of(servers, is_poisson=True, seed=7).around(SimulatedServers(0.01))
    await generator.measure(LOAD)
    assert servers.calls[0].schedule == Poisson(5, 7)


@pytest.mark.parametrize(
    ("load", "failed"), [(LOAD, True), (Load(Closed(4), 5.0), False)], ids=["open", "closed"]
)
async def test_failed_background_fails_a_window_at_an_offered_rate(
    load: Load, failed: bool
) -> None:
    alone = await SimulatedServers(0.01).measure(load)
    generator = background_of(BackgroundServers(0.01, fail_every=5)).around(SimulatedServers(0.01))
    measured = await generator.measure(load)
    missing = measured.background["zoo"].failed
    assert missing > 0
    assert measured.scheduled - measured.succeeded == missing * failed
    assert sum(measured.errors.values()) == measured.failed == missing * failed
    assert all(cause.endswith("of the background model zoo") for cause in measured.errors)
    assert measured.succeeded == alone.succeeded
    assert measured.summary()["background"]["zoo"]["errors"]


async def test_background_ends_with_a_lost_window() -> None:
    servers = BackgroundServers(0.01)
    generator = background_of(servers).around(SimulatedServers(0.01, lose=[0]))
    with pytest.raises(GeneratorLostError):
        await generator.measure(LOAD)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not others


async def test_background_without_loads_changes_nothing() -> None:
    servers = SimulatedServers(0.01)
    assert Background().around(servers) is servers
