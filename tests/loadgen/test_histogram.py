"""Tests of histograms of durations."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.histogram import Histogram


def test_histogram_quantiles_equal_those_of_the_library() -> None:
    histogram = Histogram()
    for i in range(1, 2001):
        histogram.record(i / 1000)
    for q in (0.001, 0.5, 0.9, 0.99, 1.0):
        library = histogram._counts.get_value_at_percentile(100 * q) / 1e6
        assert histogram.quantile(q) == library
    assert histogram.mean() == pytest.approx(1.0005, rel=1e-3)


@given(st.lists(st.floats(-1, 5000), min_size=1, max_size=50))
def test_histogram_counts_many_durations_as_one_by_one(durations: list[float]) -> None:
    single, together = Histogram(), Histogram()
    for duration in durations:
        single.record(duration)
    together.record_all(np.array(durations))
    assert together.encode() == single.encode()
    assert len(together) == len(single) == len(durations)
    assert together.quantile(1.0) == single.quantile(1.0)
    together.record_all(np.array([]))
    assert len(together) == len(durations)


def test_histogram_merges_and_is_pickled() -> None:
    one, other = Histogram(), Histogram()
    one.record(0.5)
    other.record(2.0, 3)
    one.add(pickle.loads(pickle.dumps(other)))
    assert len(one) == 4
    assert one.quantile(1.0) == pytest.approx(2.0, rel=1e-3)
    assert Histogram().quantile(0.5) is None
    assert Histogram().mean() is None
