"""Tests of the rate search against simulated servers."""

from dataclasses import replace

import pytest

from benchmarks.law import Law
from benchmarks.simulated import Floats
from loadgen.errors import GeneratorLostError
from loadgen.measurement import Load, Measurement, Until
from loadgen.rate.goal import Goal
from loadgen.rate.result import Probe, StopReason, SustainedRate
from loadgen.rate.search import RateSearch
from loadgen.rate.verdict import Verdict
from loadgen.schedule import Constant
from tests.simulated import SimulatedBatches, SimulatedServers

GOAL = Goal()


async def find(
    generator: SimulatedServers,
    incumbent_rps: float | None = None,
    known_rps: float | None = None,
    comparison_rps: float | None = None,
    **goal: float,
) -> SustainedRate:
    return await RateSearch(
        Goal(**goal),  # type: ignore[arg-type]
        generator,
        generator.servers,
        users=4 * generator.servers,
        incumbent_rps=incumbent_rps,
        known_rps=known_rps,
        comparison_rps=comparison_rps,
    ).find()


@pytest.mark.parametrize(("service_s", "servers"), [(0.01, 1), (0.08, 16), (0.4, 128)])
async def test_search_finds_the_capacity(service_s: float, servers: int) -> None:
    generator = SimulatedServers(service_s, servers)
    found = await find(generator)
    assert found.lower_rps is not None and found.upper_rps is not None
    assert 0.93 * generator.capacity_rps <= found.lower_rps <= 1.03 * generator.capacity_rps
    assert found.upper_rps <= found.lower_rps * 1.06
    assert found.best is not None and found.best.verdict is Verdict.PASS


async def test_search_shorter_than_one_window_reports_its_window() -> None:
    found = await find(SimulatedServers(3.0, 4), search_limit_s=5)
    assert found.lower_rps is None and found.probes
    assert found.reason.startswith("no sustained rate: at ")


class FallingServer(SimulatedServers):
    """A server that loses a sixth of its capacity before window number `at`."""

    def __init__(self, at: int):
        super().__init__(0.01)
        self._at = at

    async def measure(self, load: Load, until: Until | None = None) -> Measurement:
        if len(self.calls) == self._at:
            self.service_s = 0.012
        return await super().measure(load, until)


@pytest.mark.parametrize("at", range(1, 16))
async def test_search_never_certifies_the_old_rate_of_a_server_whose_capacity_fell(at: int) -> None:
    generator = FallingServer(at)
    found = await find(generator)
    assert found.lower_rps is not None
    assert found.lower_rps <= 1.03 * generator.capacity_rps


class RarelyFailingServer(SimulatedServers):
    """A server that refuses one request of each window above 0.97 of its capacity."""

    def window(
        self, load: Load, due: Floats, done: Floats, span: float, drained: bool = False
    ) -> Measurement:
        seen = super().window(load, due, done, span, drained)
        if (load.rate_rps or 0) <= 0.97 * self.capacity_rps or span < 9:
            return seen
        return replace(seen, succeeded=seen.succeeded - 1, errors={"status 503": 1})


async def test_search_finds_a_rate_despite_very_rare_failures() -> None:
    generator = RarelyFailingServer(0.001)
    found = await find(generator, window_s=9)
    assert any(probe.measurement.failed == 1 for probe in found.probes)
    assert found.lower_rps == pytest.approx(0.94 * generator.capacity_rps, rel=0.04)


@pytest.mark.parametrize("seed", range(2))
async def test_search_goes_near_the_estimate_after_a_failed_rate(seed: int) -> None:
    """A window that ended early shows a greater overload than there is: its queue filled."""
    law = Law(workers=4, batch=64, service_s=0.25)
    found = await find(SimulatedBatches(law, variation=0.5, seed=seed))
    assert found.probes[0].verdict is Verdict.FAIL
    assert found.probes[1].rate_rps == pytest.approx(found.capacity_rps, rel=0.1)


@pytest.mark.parametrize("seed", range(3))
async def test_search_finds_a_rate_of_varying_batches(seed: int) -> None:
    law = Law(workers=2, batch=64, delay_s=0.01, service_s=0.106, each_s=0.0125)
    found = await find(SimulatedBatches(law, variation=0.15, seed=seed))
    assert found.lower_rps is not None
    assert 0.75 * law.capacity_rps <= found.lower_rps <= 1.05 * law.capacity_rps


async def test_search_widens_the_bounds_of_a_slow_server() -> None:
    generator = SimulatedServers(1.6, 4)
    found = await find(generator)
    assert found.width > 0.05
    assert found.lower_rps == pytest.approx(2.5, rel=found.width)


async def test_search_finds_the_rate_of_one_answer_in_the_warm_up() -> None:
    generator = SimulatedServers(3.0, 4)
    found = await RateSearch(Goal(warmup_limit_s=4), generator, 4, users=4).find()
    assert found.lower_rps == pytest.approx(generator.capacity_rps, rel=0.1)


@pytest.mark.parametrize(("service_s", "fail_every"), [(0.005, 100), (0.005, 500), (0.05, 100)])
async def test_search_finds_no_rate_if_one_request_in_hundreds_fails(
    service_s: float, fail_every: int
) -> None:
    found = await find(SimulatedServers(service_s, fail_every=fail_every))
    assert found.lower_rps is None
    failed = [probe for probe in found.probes if probe.measurement.errors]
    assert failed and all("status 500" in probe.reason for probe in failed)


async def test_search_prunes_by_capacity_without_a_window() -> None:
    generator = SimulatedServers(0.01)
    found = await find(generator, incumbent_rps=200)
    assert found.pruned is not None and "capacity" in found.pruned
    assert found.lower_rps is None
    assert len(generator.calls) == 1


async def test_search_prunes_what_fails_at_the_incumbents_rate() -> None:
    generator = SimulatedServers(0.01)
    found = await find(generator, incumbent_rps=115)
    assert found.pruned is not None and "115" in found.pruned
    assert {load.rate_rps for load in generator.calls[1:]} == {115}


async def test_search_measures_what_beats_the_incumbent() -> None:
    found = await find(SimulatedServers(0.01), incumbent_rps=80)
    assert found.pruned is None
    assert found.lower_rps == pytest.approx(100, rel=0.07)


@pytest.mark.timeout(60)
async def test_search_ends_on_a_range_of_one_width() -> None:
    """MLRsearch 1.2.1 loops for ever if the greatest load is one width above the least."""
    found = await find(SimulatedServers(1 / 102), incumbent_rps=100, width=0.2)
    assert found.lower_rps == pytest.approx(100, rel=0.2)


async def test_search_strengthens_a_late_generator_and_certifies_nothing() -> None:
    generator = SimulatedServers(0.01, late_s=0.05)
    found = await find(generator)
    assert generator.raised
    assert found.lower_rps is None
    assert all(p.verdict is not Verdict.PASS for p in found.probes)
    assert any(p.verdict is Verdict.GENERATOR_LIMITED for p in found.probes)


async def test_search_does_not_blame_the_server_for_a_late_generator() -> None:
    for incumbent_rps in (20.0, 90.0):
        found = await find(SimulatedServers(0.01, late_s=0.05), incumbent_rps=incumbent_rps)
        assert found.pruned is None and found.lower_rps is None


async def test_search_repeats_the_window_of_a_lost_process() -> None:
    found = await find(SimulatedServers(0.01, lose=[0, 3]))
    assert found.lower_rps == pytest.approx(100, rel=0.07)
    with pytest.raises(GeneratorLostError):
        await find(SimulatedServers(0.01, lose=[2, 3]))


async def test_search_offers_nothing_above_the_limit() -> None:
    generator = SimulatedServers(0.001)
    found = await find(generator, max_rate_rps=50)
    assert found.lower_rps == 50
    assert found.upper_rps is None
    assert found.stop_reason is StopReason.MAX_RATE


async def test_search_lowers_the_rate_for_a_latency_limit() -> None:
    """Poisson arrivals at a server of 100 rps: the queue's wait grows with the rate."""
    free = await find(SimulatedServers(0.01), arrivals="poisson")
    kept = await find(SimulatedServers(0.01), arrivals="poisson", p99_s=0.03)
    assert free.lower_rps and kept.lower_rps and kept.best and kept.upper_rps
    assert kept.lower_rps < 0.85 * free.lower_rps
    p99_s = kept.best.measurement.latency.quantile(0.99)
    assert p99_s and p99_s <= 0.03
    assert any("p99 latency was" in probe.reason for probe in kept.probes)
    assert kept.p99_excess <= 0 == free.p99_excess


async def test_search_reports_the_excess_of_a_latency_limit_that_nothing_meets() -> None:
    found = await find(SimulatedServers(0.08, 16), p99_s=0.04)
    assert found.lower_rps is None
    assert found.p99_excess == pytest.approx(1.0, abs=0.2)


async def test_search_does_not_certify_the_old_rate_of_a_slowing_server() -> None:
    generator = SimulatedServers(0.01)
    measure, begun = generator.measure, []

    async def slower(load: Load, until: Until | None = None) -> Measurement:
        # The rate that had passed is offered for the last time at half the capacity.
        begun.append(load)
        if len(begun) > 6:
            generator.service_s = 0.02
        return await measure(load, until)

    generator.measure = slower  # type: ignore[method-assign]
    found = await find(generator)
    assert found.lower_rps is not None and found.lower_rps <= 52
    assert any(warning.startswith("drift: ") for warning in found.warnings)


@pytest.mark.parametrize(
    ("rates", "verdicts", "left_out", "bounds", "sentence"),
    [
        ((100, 110), "PF", (), (100, 110), "a passed rate below a failed one"),
        ((100, 100, 110), "PUF", (), (None, 100), "an undecided window votes against the rate"),
        ((100, 110, 100), "PFU", (2,), (100, 110), "a final undecided window has no vote"),
        ((100, 110, 105), "PFG", (), (100, 105), "a generator-limited window is an upper bound"),
        (
            (100, 110, 90),
            "PFG",
            (),
            (100, 110),
            "a generator-limited window below a passed rate is no bound",
        ),
        ((100, 110, 90), "PFF", (), (None, 90), "a failed window below a passed rate is a bound"),
        ((100, 100, 100, 110), "PPFF", (), (100, 110), "the majority of windows decides"),
    ],
)
async def test_search_bounds_are_majorities(
    rates: tuple[float, ...],
    verdicts: str,
    left_out: tuple[int, ...],
    bounds: tuple[float | None, float],
    sentence: str,
) -> None:
    search = RateSearch(GOAL, SimulatedServers(0.01))
    by_letter = {verdict.name[0]: verdict for verdict in Verdict}
    measured = await SimulatedServers(0.01).measure(Load(Constant(50), 1))
    search._probes += [
        Probe(rate, by_letter[letter], "", measured)
        for rate, letter in zip(rates, verdicts, strict=True)
    ]
    search._open |= set(left_out)
    assert search._bounds() == bounds, sentence


@pytest.mark.parametrize("share", [0.5, 0.8, 1.0, 1.1, 1.6])
async def test_search_goes_from_a_known_rate_to_the_capacity(share: float) -> None:
    generator = SimulatedServers(0.08, 16)
    found = await find(generator, known_rps=share * generator.capacity_rps)
    assert found.lower_rps is not None and found.upper_rps is not None
    assert 0.93 * generator.capacity_rps <= found.lower_rps <= 1.03 * generator.capacity_rps
    assert found.probes[0].rate_rps == share * generator.capacity_rps
    if share == 1.0:
        assert len(found.probes) <= 3, "a search from the right rate needs few windows"


async def test_search_from_a_known_rate_ends_at_the_highest_rate() -> None:
    found = await find(SimulatedServers(0.08, 16), known_rps=80.0, max_rate_rps=100.0)
    assert (found.lower_rps, found.upper_rps) == (100.0, None)
    assert found.stop_reason is StopReason.MAX_RATE


async def test_search_from_a_known_rate_finds_what_holds_when_time_is_over() -> None:
    generator = SimulatedServers(0.4, 128)
    found = await find(generator, known_rps=4 * generator.capacity_rps, search_limit_s=5)
    assert found.lower_rps is None or found.lower_rps <= 1.03 * generator.capacity_rps


async def test_search_measures_latency_at_the_comparison_rate() -> None:
    found = await find(SimulatedServers(0.08, 16), known_rps=200.0, comparison_rps=120.0)
    assert found.comparison is not None and found.comparison.load.rate_rps == 120.0
    assert found.comparison.span_s >= 5 and found.comparison.latency.quantile(0.99) > 0
    assert 120.0 not in [probe.rate_rps for probe in found.probes], "the comparison is not a probe"
