"""Tests of mixes."""

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.payloads import Payload, combine, mix
from loadgen.schedule import Share


def bodies(payloads: list[Payload], count: int, share: Share = Share(), **options) -> list[bytes]:
    return [payload.body for payload in islice(mix(payloads, share, **options), count)]


@pytest.mark.parametrize("weights", [[1.0] * 10, [*[1.0] * 9, 3.0]])
def test_mix_is_the_same_for_every_window(weights: list[float]) -> None:
    payloads = [Payload(str(i).encode(), weight=weight) for i, weight in enumerate(weights)]
    first, again = (bodies(payloads, 30) for _ in range(2))
    assert first == again != bodies(payloads, 30, Share(1, 2))
    assert first != bodies(payloads, 30, seed=1)


def test_mix_of_equal_weights_sends_each_payload_once_in_a_cycle() -> None:
    payloads = [Payload(str(i).encode()) for i in range(10)]
    found = bodies(payloads, 30)
    for start in (0, 10, 20):
        assert sorted(found[start : start + 10]) == sorted(p.body for p in payloads)


@given(st.lists(st.floats(0.05, 100), min_size=1, max_size=6), st.integers(1, 400))
def test_mix_keeps_the_proportions_in_every_stretch(weights: list[float], count: int) -> None:
    payloads = [Payload(str(i).encode(), weight=weight) for i, weight in enumerate(weights)]
    counts = Counter(bodies(payloads, count))
    for payload in payloads:
        exact = count * payload.weight / sum(weights)
        assert abs(counts[payload.body] - exact) < 1 + len(weights)


def test_mix_takes_other_weights_than_the_payloads_own() -> None:
    payloads = [Payload(b"a", weight=9), Payload(b"b")]
    assert Counter(bodies(payloads, 400, weights=[1, 3])) == {b"a": 100, b"b": 300}


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_mix_depends_on_relative_weights_only(scale: float) -> None:
    payloads = [Payload(b"a", weight=3 * scale), Payload(b"b", weight=scale)]
    assert Counter(bodies(payloads, 400)) == {b"a": 300, b"b": 100}


def test_combine_gives_each_group_its_share() -> None:
    a = [Payload(b"a", weight=3), Payload(b"A")]
    b = [Payload(str(i).encode()) for i in range(100)]
    combined = combine({"first": (a, 3), "second": (b, 1)})
    assert [payload.group for payload in combined] == [*["first"] * 2, *["second"] * 100]
    counts = Counter(bodies(combined, 1600))
    assert abs(counts[b"a"] - 900) <= 2 and abs(counts[b"A"] - 300) <= 2
    assert sum(counts.values()) - counts[b"a"] - counts[b"A"] == pytest.approx(400, abs=4)
