"""Capacity plans from measured latency curves."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from search.answer.operating_points import OperatingPoint
from search.answer.plan import capacity_plan
from search.errors import RunError
from search.intervals import Interval
from servetune.errors import InputError
from tests.search.answer.points import latencies, point

CURVE = {0.5: 0.1, 0.7: 0.2, 0.9: 0.4, 1.0: 1.0}


def confirmed(
    low: float = 80, mean: float = 100, high: float = 125, **figures: Any
) -> OperatingPoint:
    rate = Interval(mean, low, high)
    return point(7, mean, 1.0, rate=rate, latency=latencies(mean, CURVE), **figures)


def unconfirmed(**figures: Any) -> OperatingPoint:
    return point(7, 100, 1.0, latency=latencies(100, CURVE), **figures)


def test_plan_counts_with_the_lower_end_and_keeps_the_headroom() -> None:
    plan = capacity_plan(confirmed(), 1000, headroom=0.3)
    assert plan.count == math.ceil(1000 / (0.7 * 80)) == 18
    assert (plan.replicas.low, plan.replicas.high) == (math.ceil(1000 / (0.7 * 125)), 18)
    assert plan.load.rps == pytest.approx(1000 / 18) and plan.load.is_sustained
    assert plan.target_rps.value == pytest.approx(56) and plan.target_rps.high == pytest.approx(
        87.5
    )
    assert plan.has_intervals and (plan.replica_rps.low, plan.replica_rps.high) == (80, 125)


def test_plan_interpolates_latency_at_the_share_of_the_expected_rate() -> None:
    plan = capacity_plan(confirmed(), 600, headroom=0.25)  # 10 replicas, 60 rps each
    assert plan.count == 10 and plan.load.p99_s is not None and plan.load.p50_s is not None
    assert plan.load.p99_s.value == pytest.approx(0.15)
    assert plan.load.p99_s.low == pytest.approx(0.1)  # 60 of 125 rps is below the curve
    assert plan.load.p99_s.high == pytest.approx(0.25)  # 60 of 80 rps
    assert plan.load.p50_s.value == pytest.approx(0.075)


def test_plan_bounds_include_a_peak_between_the_ends() -> None:
    curve = latencies(100, {0.5: 0.1, 0.7: 3.0, 0.9: 0.4, 1.0: 0.5})
    odd = point(1, 100, rate=Interval(100, 80, 125), latency=curve)
    plan = capacity_plan(odd, 700, headroom=0.1)  # 10 replicas, 70 rps each
    assert plan.load.p99_s and plan.load.p99_s.high == pytest.approx(3.0)


def test_plan_without_confirmation_reports_that_the_interval_is_unknown() -> None:
    plan = capacity_plan(unconfirmed(), 500)
    assert not plan.has_intervals and plan.replicas.low is None
    assert plan.load.p99_s and plan.load.p99_s.high is None
    assert any("interval is not known" in note for note in plan.notes)


def test_plan_limit_on_p99_lowers_the_rate_of_a_replica() -> None:
    plan = capacity_plan(confirmed(), 1000, p99_s=0.3, headroom=0)  # held up to a share of 0.8
    assert plan.scaling.rate_rps == pytest.approx(0.8 * 80)
    assert plan.load.p99_s and plan.load.p99_s.high and plan.load.p99_s.high <= 0.3 + 1e-9


@pytest.mark.parametrize("limit_s", [0.12, 0.2, 0.35, 0.6, 2.0])
@pytest.mark.parametrize("headroom", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("load_rps", [1, 37, 64, 1000, 12345])
def test_plan_keeps_its_limit_at_the_upper_bound(
    limit_s: float, headroom: float, load_rps: float
) -> None:
    plan = capacity_plan(confirmed(), load_rps, p99_s=limit_s, headroom=headroom)
    assert plan.load.p99_s and plan.load.p99_s.high is not None
    assert plan.load.p99_s.high <= limit_s * (1 + 1e-6)
    assert plan.load.rps <= plan.scaling.target_rps * (1 + 1e-6)
    fewer = plan.count - 1
    assert not fewer or load_rps / fewer > plan.scaling.target_rps


def test_plan_names_the_least_p99_of_a_limit_that_is_not_held() -> None:
    with pytest.raises(
        RunError, match=r"any measured load: its lowest measured p99 is 0.1 s, at 50"
    ):
        capacity_plan(confirmed(), 1000, p99_s=0.05)
    falling = point(1, 100, latency=latencies(100, {0.5: 0.6, 0.7: 0.45, 1.0: 0.9}))
    with pytest.raises(RunError, match=r"at the lowest measured load, 50 rps, with 0.6 s.* 0.45 s"):
        capacity_plan(falling, 1000, p99_s=0.5)


def test_plan_refuses_a_load_beyond_the_curve() -> None:
    short = point(1, 100, latency=latencies(100, {0.5: 0.1, 0.9: 0.4}))
    with pytest.raises(RunError, match=r"above 90 rps; use a headroom of at least 0.1"):
        capacity_plan(short, 1000, headroom=0)
    assert capacity_plan(short, 1000, headroom=0.1).count == 12
    with pytest.raises(RunError, match="no measured latency"):
        capacity_plan(point(1, 100), 1000)


def test_plan_refuses_a_predicted_configuration() -> None:
    with pytest.raises(RunError, match="no measured rate"):
        capacity_plan(point(1, 100, 0.1, is_measured=False), 1000)


@pytest.mark.parametrize(
    "arguments",
    [
        {"rate_rps": 0},
        {"rate_rps": -1},
        {"rate_rps": math.nan},
        {"rate_rps": math.inf},
        {"rate_rps": 1, "p99_s": 0},
        {"rate_rps": 1, "p99_s": math.nan},
        {"rate_rps": 1, "headroom": 1},
        {"rate_rps": 1, "headroom": -0.1},
        {"rate_rps": 1, "headroom": math.nan},
        {"rate_rps": 1, "price_per_hour": -1},
        {"rate_rps": 1, "price_per_hour": math.nan},
    ],
)
def test_plan_refuses_arguments_out_of_range(arguments: dict[str, float]) -> None:
    with pytest.raises(InputError, match="must be"):
        capacity_plan(confirmed(), **arguments)


def test_plan_notes_a_load_below_the_curve_and_uses_its_lowest_latency() -> None:
    plan = capacity_plan(confirmed(), 10)
    assert plan.count == 1 and plan.one_down is None
    assert plan.load.p99_s and plan.load.p99_s.value == pytest.approx(0.1)
    assert any("below 50 rps" in note for note in plan.notes)
    assert any("nothing is served" in note for note in plan.notes)


def test_plan_ignores_the_latency_at_a_far_lower_rate() -> None:
    p99_by_share = {0.5: 0.2, 0.7: 0.3, 1.0: 0.6}
    known = point(1, 100, 0.6, latency=latencies(100, p99_by_share))
    lower = replace(known, latency=latencies(100, {0.01: 3.0, **p99_by_share}))
    for rate_rps, p99_s in ((20.0, None), (65.0, 0.4)):
        assert capacity_plan(lower, rate_rps, p99_s) == replace(
            capacity_plan(known, rate_rps, p99_s), point=lower
        )


def test_plan_says_what_one_replica_less_means() -> None:
    plan = capacity_plan(confirmed(), 1000)
    assert plan.one_down and plan.one_down.rps == pytest.approx(1000 / 17)
    assert plan.one_down.is_sustained
    two = capacity_plan(confirmed(), 150, headroom=0)  # 75 rps each, 150 with one down
    assert two.count == 2 and two.one_down and not two.one_down.is_sustained
    assert two.one_down.p99_s is None


def test_plan_multiplies_memory_and_price_by_replicas() -> None:
    peaks = (900, 1000)
    plan = capacity_plan(
        confirmed(memory_mb=1000, memory_peaks_mb=peaks), 1000, price_per_hour=0.34
    )
    assert plan.total_memory_mb and plan.total_memory_mb.value == 18 * 1000
    assert plan.memory_mb and plan.memory_mb.low and plan.memory_mb.low < 900
    assert plan.cost_per_million
    assert plan.cost_per_million.value == pytest.approx(18 * 0.34 / 3.6)
    assert plan.cost_per_million.low == pytest.approx(12 * 0.34 / 3.6)


def test_plan_autoscaling_numbers_follow_from_the_target() -> None:
    plan = capacity_plan(confirmed(), 1000, headroom=0.3)
    assert plan.invocations_per_minute.value == 60 * 56
    assert plan.concurrency.value == math.ceil(56 * 0.1)  # p50 at a share of 0.7
    metric = plan.to_dict()["autoscaling"]["horizontal_pod_autoscaler"]["metrics"][0]
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "56000m"}


def test_plan_is_plain_json() -> None:
    data = json.loads(json.dumps(capacity_plan(confirmed(), 1000).to_dict()))
    assert data["replicas"] == {"value": 18, "low": 12, "high": 18}
    assert data["load"]["p99_s"]["value"] == capacity_plan(confirmed(), 1000).load.p99_s.value  # type: ignore[union-attr]
