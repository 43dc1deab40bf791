"""Tests of the measurement of a window."""

from collections import Counter
from dataclasses import replace

import pytest

from loadgen.measurement import Group, Load, merge
from loadgen.schedule import Constant
from tests.loadgen.conftest import late_window
from tests.simulated import SimulatedServers


@pytest.mark.parametrize(
    ("late_s", "latency_s", "cpu", "run_delay", "why"),
    [
        pytest.param(0.05, 0.01, 0.1, 0.3, "the load generator waited for a core 30 % of the time", id="starved"),
        pytest.param(0.05, 0.01, 0.95, 0.3, "the load generator used 95 % of its core", id="busy, and starved by it"),
        pytest.param(0.05, 0.01, 0.1, 0.01, "the load generator was late", id="late for no known cause"),
        pytest.param(0.004, 0.01, 0.1, 0.49, None, id="on time, although it waited for a core"),
        pytest.param(0.004, 0.01, 0.95, 0.49, None, id="on time, although it was busy"),
        pytest.param(0.05, 4.0, 0.1, 0.3, None, id="late by little compared with the latency"),
    ],
)  # fmt: skip
def test_measurement_is_generator_limited_only_if_requests_were_late(
    late_s: float, latency_s: float, cpu: float, run_delay: float, why: str | None
) -> None:
    window = late_window(late_s, latency_s, client_cpu=cpu, client_run_delay=run_delay)
    expected = None if why is None else f"p99 lateness was {1000 * late_s:.1f} ms; {why}"
    assert window.generator_limited == expected


async def test_merge_adds_up_the_parts_of_a_window() -> None:
    one = await SimulatedServers(0.01).measure(Load(Constant(50), 10))
    both = merge([one, one])
    assert (both.scheduled, both.succeeded) == (2 * one.scheduled, 2 * one.succeeded)
    assert both.goodput_rps == pytest.approx(2 * one.goodput_rps)
    assert len(both.latency) == 2 * len(one.latency)


async def test_merge_adds_up_the_groups_of_a_mix() -> None:
    one = await SimulatedServers(0.01).measure(Load(Constant(50), 1))
    groups = []
    for seconds, name in ((0.1, "cat"), (0.3, "cat"), (0.2, "dog")):
        group = Group(errors=Counter({"timeout": 1}))
        group.latency.record(seconds)
        groups.append({name: group})
    both = merge([replace(one, groups=each) for each in groups])
    assert {name: (g.ended, g.failed) for name, g in both.groups.items()} == {
        "cat": (2, 2),
        "dog": (1, 1),
    }
    assert both.groups["cat"].latency.quantile(1.0) == pytest.approx(0.3, rel=0.01)
    assert groups[0]["cat"].ended == 1, "the parts stay as they are"
    assert both.summary()["groups"]["dog"]["latency_s"]["p99"] == pytest.approx(0.2, rel=0.01)


async def test_merge_keeps_the_answers_after_the_end_of_the_shorter_part() -> None:
    long = await SimulatedServers(0.01).measure(Load(Constant(50), 10))
    short = replace(long, **{name: getattr(long, name)[:100] for name in ("begun", "done", "good")})
    both = merge([short, long])
    assert both.good.sum() == short.good.sum() + long.good.sum()


async def test_merge_adds_up_cpu_by_host() -> None:
    one = await SimulatedServers(0.01).measure(Load(Constant(50), 1))
    parts = [replace(one, client_cpu_s=cpu) for cpu in ({"a": 1.0}, {"b": 2.0}, {"a": 4.0})]
    assert merge(parts).client_cpu_s == {"a": 5.0, "b": 2.0}
