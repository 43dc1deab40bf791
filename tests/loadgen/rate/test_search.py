"""Tests of the rate search against simulated servers."""

from dataclasses import replace

import pytest

from benchmarks.law import Law
from benchmarks.simulated import Floats, SimulatedStub
from benchmarks.wander import Wander
from loadgen.errors import GeneratorLostError
from loadgen.measurement import Load, Measurement, Until
from loadgen.rate.goal import Depth, Goal
from loadgen.rate.result import StopReason, SustainedRate
from loadgen.rate.search import RateSearch
from loadgen.rate.verdict import Verdict, duration_s
from tests.simulated import SimulatedBatches, SimulatedServers


async def find(
    generator: SimulatedServers,
    incumbent_rps: float | None = None,
    comparison_rps: float | None = None,
    depth: Depth = Depth.FULL,
    latency_curve: bool = False,
    curve_from_rps: float | None = None,
    known_share: float | None = None,
    **goal: float | str,
) -> SustainedRate:
    return await RateSearch(
        Goal(**goal),  # type: ignore[arg-type]
        generator,
        generator.servers,
        users=4 * generator.servers,
        incumbent_rps=incumbent_rps,
        comparison_rps=comparison_rps,
        depth=depth,
        latency_curve=latency_curve,
        curve_from_rps=curve_from_rps,
        known_share=known_share,
    ).find()


@pytest.mark.parametrize(("service_s", "servers"), [(0.01, 1), (0.08, 16), (0.4, 128)])
async def test_search_finds_the_capacity(service_s: float, servers: int) -> None:
    generator = SimulatedServers(service_s, servers)
    found = await find(generator)
    assert found.lower_rps == pytest.approx(0.97 * generator.capacity_rps, rel=0.02)
    assert found.estimate is not None
    assert found.estimate.rps == pytest.approx(generator.capacity_rps, rel=0.01)
    assert found.estimate.low_rps <= found.estimate.rps <= found.estimate.high_rps
    assert found.best is not None and found.best.verdict is Verdict.PASS


class FallingServer(SimulatedServers):
    """A server that loses a quarter of its capacity before window number `at`."""

    def __init__(self, at: int):
        super().__init__(0.01)
        self._at = at

    async def measure(self, load: Load, until: Until | None = None) -> Measurement:
        if len(self.calls) == self._at:
            self.service_s = 0.0133
        return await super().measure(load, until)


@pytest.mark.parametrize("at", range(1, 4))
async def test_search_never_certifies_the_old_rate_of_a_server_whose_capacity_fell(at: int) -> None:
    generator = FallingServer(at)
    found = await find(generator)
    assert found.lower_rps is not None
    assert found.lower_rps <= 1.03 * generator.capacity_rps


class RarelyFailingServer(SimulatedServers):
    """A server that refuses one request of each window above 0.95 of its capacity."""

    def window(
        self, load: Load, due: Floats, done: Floats, span: float, drained: bool = False
    ) -> Measurement:
        seen = super().window(load, due, done, span, drained)
        if (load.rate_rps or 0) <= 0.95 * self.capacity_rps or span < 9:
            return seen
        return replace(seen, succeeded=seen.succeeded - 1, errors={"status 503": 1})


async def test_search_finds_a_rate_despite_very_rare_failures() -> None:
    generator = RarelyFailingServer(0.001)
    found = await find(generator, window_s=9)
    assert any(probe.measurement.failed == 1 for probe in found.probes)
    assert found.lower_rps == pytest.approx(0.94 * generator.capacity_rps, rel=0.04)


@pytest.mark.parametrize("seed", range(3))
async def test_search_finds_a_rate_of_varying_batches(seed: int) -> None:
    law = Law(workers=2, batch=64, delay_s=0.01, service_s=0.106, each_s=0.0125)
    found = await find(SimulatedBatches(law, variation=0.15, seed=seed))
    assert found.lower_rps is not None
    assert 0.75 * law.capacity_rps <= found.lower_rps <= 1.05 * law.capacity_rps


@pytest.mark.parametrize("batch_s", [1.0, 2.0, 4.0, 8.0])
async def test_search_finds_the_rate_of_slow_batches(batch_s: float) -> None:
    law = Law(workers=2, batch=32, service_s=batch_s, queue=1000)
    stub = SimulatedStub(law, seed=0)
    expected_s: list[float] = []
    search = RateSearch(
        Goal(timeout_s=60), stub, cycle_requests=64, users=128, announce=expected_s.append
    )
    found = await search.find()
    assert found.lower_rps == pytest.approx(0.97 * law.capacity_rps, rel=0.01)
    windows_s = sum(duration_s(probe.measurement) for probe in found.probes)
    assert expected_s == [pytest.approx(windows_s, rel=0.3)]
    assert windows_s <= 30 * batch_s + 20


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


@pytest.mark.parametrize("incumbent_rps", [80, 110])
async def test_search_measures_what_is_near_the_incumbent(incumbent_rps: float) -> None:
    found = await find(SimulatedServers(0.01), incumbent_rps=incumbent_rps)
    assert found.pruned is None
    assert found.lower_rps == pytest.approx(97, rel=0.02)


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
    assert kept.limit_excess <= 0 == free.limit_excess
    assert kept.unlimited_rps == pytest.approx(free.lower_rps, rel=0.1)


@pytest.mark.parametrize("limits", [{"p95_s": 0.04}, {"p99_s": 0.2}])
async def test_search_certifies_a_rate_whose_limit_holds_at_a_little_less(
    limits: dict[str, float],
) -> None:
    """At 0.95 of the rate, the limit holds in most new windows."""
    holding = []
    for seed in range(4):
        found = await find(SimulatedServers(0.01), seed=100 * seed, **limits)
        assert found.lower_rps
        for number in range(10):
            again = await find(
                SimulatedServers(0.01),
                depth=Depth.ESTIMATE,
                seed=10_000 + 1000 * seed + number,
                for_rps=0.95 * found.lower_rps,
                **limits,
            )
            holding.append(again.limit_excess <= 0)
    assert sum(holding) >= 0.8 * len(holding)


async def test_search_measures_the_latency_at_the_rate_that_must_be_served() -> None:
    """The limits hold there, and the sustained rate is the highest one all the same."""
    server = SimulatedServers(0.01)
    found = await find(server, for_rps=50.0, p99_s=0.01)
    assert found.lower_rps == found.unlimited_rps == pytest.approx(97, rel=0.02)
    assert found.target is not None and found.target.rate_rps == 50.0
    assert found.limit_excess > 0.5, "Poisson arrivals wait for one another"
    assert found.target not in found.probes and all(p.rate_rps > 80 for p in found.probes)


@pytest.mark.parametrize(("for_rps", "is_measured"), [(150.0, False), (60.0, True)])
async def test_search_skips_a_rate_above_the_capacity(for_rps: float, is_measured: bool) -> None:
    for depth in Depth:
        found = await find(SimulatedServers(0.01), depth=depth, for_rps=for_rps)
        assert (found.target is not None) == is_measured
        assert (found.lower_rps is None) == (depth is Depth.ESTIMATE)


async def test_search_is_pruned_below_the_rate_that_the_goal_needs() -> None:
    found = await find(SimulatedServers(0.01), incumbent_rps=150.0, for_rps=120.0)
    assert found.pruned and "too far below the 150.0 rps that the goal needs" in found.pruned


async def test_search_reports_the_excess_of_a_latency_limit_that_nothing_meets() -> None:
    found = await find(SimulatedServers(0.08, 16), p99_s=0.04)
    assert found.lower_rps is None
    assert found.limit_excess == pytest.approx(1.0, abs=0.2)
    assert found.unlimited_rps == pytest.approx(0.97 * 200, rel=0.02)


async def test_search_lowers_a_rate_that_fails_with_poisson_arrivals() -> None:
    """A queue of one request holds with constant arrivals only."""
    law = Law(workers=2, batch=1, service_s=0.02, queue=1)
    stub = SimulatedStub(law, seed=0)
    found = await RateSearch(Goal(), stub, cycle_requests=2, users=3).find()
    assert found.probes[0].verdict is Verdict.PASS
    first = found.probes[0].rate_rps
    assert found.lower_rps is None or found.lower_rps < 0.9 * first
    assert any(
        f"{first:.1f} rps passed with constant arrivals, and Poisson" in warning
        for warning in found.warnings
    )


class OnceFailingServer(SimulatedServers):
    """A server that fails one request of the window of this number."""

    def __init__(self, number: int):
        super().__init__(0.01)
        self._number = number

    def window(
        self, load: Load, due: Floats, done: Floats, span: float, drained: bool = False
    ) -> Measurement:
        seen = super().window(load, due, done, span, drained)
        if len(self.calls) != self._number + 1 or not seen.succeeded:
            return seen
        return replace(seen, succeeded=seen.succeeded - 1, errors={"status 503": 1})


@pytest.mark.parametrize("number", [1, 2])
async def test_search_never_reports_a_rate_with_a_failed_request(number: int) -> None:
    found = await find(OnceFailingServer(number))
    failed = [probe for probe in found.probes if probe.measurement.failed]
    assert failed
    # The second window has Poisson arrivals at 0.9 of the rate that passed.
    refuted = failed[0].rate_rps / (0.9 if number == 2 else 1)
    assert found.lower_rps is not None and found.lower_rps < refuted
    counted = [p.measurement for p in found.probes if p.rate_rps == found.lower_rps]
    assert sum(m.scheduled for m in counted) == found.requests_without_failure
    # Two rates were tried: each has half of the error probability.
    assert found.success_bound() == pytest.approx(0.025 ** (1 / found.requests_without_failure))


async def test_search_of_depth_estimate_offers_no_rate() -> None:
    generator = SimulatedServers(0.08, 16)
    found = await find(generator, depth=Depth.ESTIMATE)
    assert (found.lower_rps, found.probes, len(generator.calls)) == (None, (), 1)
    assert found.stop_reason is StopReason.ESTIMATED
    assert found.estimate is not None and found.estimate.rps == pytest.approx(200, rel=0.01)


async def test_search_of_depth_screen_offers_one_short_window() -> None:
    generator = SimulatedServers(0.08, 16)
    found = await find(generator, depth=Depth.SCREEN)
    assert found.lower_rps == pytest.approx(194, rel=0.01)
    assert [probe.measurement.span_s for probe in found.probes] == [8.0]


async def test_search_of_depth_screen_ends_when_a_rate_below_the_incumbents_fails() -> None:
    generator = SimulatedServers(0.08, 16, fail_every=50)
    found = await find(generator, depth=Depth.SCREEN, incumbent_rps=196.0)
    assert found.stop_reason is StopReason.PRUNED_BY_RATE and found.lower_rps is None
    assert len(found.probes) == 1 and found.probes[0].verdict is Verdict.FAIL
    assert found.pruned is not None and "the incumbent sustains 196.0" in found.pruned
    # Without an incumbent, and at full depth, lower rates are offered.
    for others in ({"depth": Depth.SCREEN}, {"incumbent_rps": 196.0}):
        found = await find(SimulatedServers(0.08, 16, fail_every=50), **others)
        assert found.stop_reason is not StopReason.PRUNED_BY_RATE and len(found.probes) > 1


async def test_search_of_depth_screen_offers_nothing_after_a_rate_below_the_incumbents() -> None:
    """Whether it failed or was undecided: a rank is not worth the bracketing of a slow server."""
    law = Law(workers=2, batch=32, service_s=0.5)
    verdicts = []
    for seed in range(15):
        stub = SimulatedStub(law, seed=seed, wander=Wander(0.15, 3.0, seed=seed))
        search = RateSearch(Goal(), stub, 64, 128, incumbent_rps=126.0, depth=Depth.SCREEN)
        found = await search.find()
        below = [p for p in found.probes if p.rate_rps < 126.0 and p.verdict is not Verdict.PASS]
        verdicts += [probe.verdict for probe in below]
        assert not below or below == [found.probes[-1]]
        assert not below or found.stop_reason is StopReason.PRUNED_BY_RATE
    assert {Verdict.FAIL, Verdict.UNDECIDED} == set(verdicts)


async def test_search_measures_a_latency_curve() -> None:
    generator = SimulatedServers(0.01)
    found = await find(generator, latency_curve=True)
    assert [share for share, _ in found.curve] == [0.5, 0.7, 0.9]
    p99s = [window.latency.quantile(0.99) or 0.0 for _, window in found.curve]
    assert p99s == sorted(p99s) and p99s[0] < p99s[-1]
    assert found.curve[-1][1] is found.probes[-1].measurement, "the window of Poisson arrivals"


@pytest.mark.parametrize(
    ("from_rps", "count"), [(4.0, 4), (0.1, 3), (39.0, 3), (90.0, 3), (200.0, 3)]
)
async def test_search_begins_a_latency_curve_at_a_far_lower_rate(
    from_rps: float, count: int
) -> None:
    announced: list[float] = []
    search = RateSearch(
        Goal(),
        SimulatedServers(0.01),
        users=4,
        latency_curve=True,
        curve_from_rps=from_rps,
        announce=announced.append,
    )
    found = await search.find()
    shares = [share for share, _ in found.curve]
    assert shares[-3:] == [0.5, 0.7, 0.9] and len(shares) == count
    if count == 4:
        lowest = found.curve[0][1]
        assert lowest.load.rate_rps == pytest.approx(from_rps) and lowest.succeeded >= 20
        without = RateSearch(Goal(), SimulatedServers(0.01), users=4, latency_curve=True)
        without.announce = announced.append
        await without.find()
        assert announced[0] > announced[1] + 5, "the window at the lower rate is announced"


async def test_search_measures_latency_at_the_comparison_rate() -> None:
    found = await find(SimulatedServers(0.08, 16), comparison_rps=120.0)
    assert found.comparison is not None and found.comparison.load.rate_rps == 120.0
    assert found.comparison.span_s >= 5 and found.comparison.latency.quantile(0.99) > 0
    assert 120.0 not in [probe.rate_rps for probe in found.probes], "the comparison is not a probe"


@pytest.mark.parametrize(
    ("depth", "least_s", "most_s"), [(Depth.FULL, 59, 61), (Depth.SCREEN, 8, 15)]
)
async def test_search_warns_of_an_unsteady_server_and_verifies_it_for_longer(
    depth: Depth, least_s: float, most_s: float
) -> None:
    """A server that is up to several times as fast in some seconds as in others."""
    law = Law(workers=2, batch=1, service_s=0.3)
    stub = SimulatedStub(law, seed=2, wander=Wander(1.0, 5.0, seed=2))
    found = await RateSearch(Goal(), stub, 2, 4, depth=depth).find()
    assert least_s <= found.warmup.span_s <= most_s
    assert any("the server was unsteady" in warning for warning in found.warnings)
    steady = await RateSearch(Goal(), SimulatedStub(law, seed=1), 2, 4, depth=depth).find()
    assert steady.warmup.span_s < 9 and not steady.warnings


async def test_search_within_a_limit_begins_with_a_known_rate() -> None:
    first = SimulatedServers(0.01)
    found = await find(first, p99_s=0.03)
    again = SimulatedServers(0.01)
    known_share = (found.lower_rps or 0.0) / found.capacity_rps
    verified = await find(again, p99_s=0.03, known_share=known_share)
    assert verified.lower_rps == pytest.approx(found.lower_rps, rel=0.1)
    assert len(again.calls) < len(first.calls)
    without_limit = await find(SimulatedServers(0.01), known_share=0.5)
    assert without_limit.lower_rps is not None and without_limit.lower_rps > 90


@pytest.mark.parametrize("depth", [Depth.FULL, Depth.SCREEN])
@pytest.mark.parametrize("known_share", [0.2, 0.99])
async def test_search_lowers_a_known_rate_that_misses_the_limit(
    depth: Depth, known_share: float
) -> None:
    found = await find(SimulatedServers(0.01), depth=depth, p99_s=0.03, known_share=known_share)
    assert found.lower_rps is not None
    assert found.lower_rps <= known_share * found.capacity_rps
    assert found.limit_excess <= 0


async def test_search_that_ranks_by_a_known_share_lowers_it_in_long_windows() -> None:
    goal = {"p99_s": 0.03, "window_s": 60.0, "window_limit_s": 60.0}
    found = await find(SimulatedServers(0.01), depth=Depth.SCREEN, known_share=0.75, **goal)
    assert found.lower_rps is not None and found.lower_rps < 0.7 * found.capacity_rps


@pytest.mark.parametrize(("service_s", "servers"), [(0.01, 1), (0.08, 16), (0.4, 128)])
async def test_search_that_ranks_by_a_known_share_offers_one_window(
    service_s: float, servers: int
) -> None:
    generator = SimulatedServers(service_s, servers)
    found = await find(generator, depth=Depth.SCREEN, p99_s=4 * service_s, known_share=0.3)
    assert len(generator.calls) == 2, "a closed loop and a window within the limit"
    assert found.lower_rps == pytest.approx(0.3 * found.capacity_rps)
