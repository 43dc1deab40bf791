"""Tests of counts in bins."""

import numpy as np
import pytest

from loadgen.bins import Bins
from loadgen.measurement import BIN_S


def test_bins_count_events_where_they_are() -> None:
    bins = Bins(10.0)
    bins.add(np.array([0.0, 0.01, 0.03, 9.99]))
    bins.add_one(0.03)
    counts = bins.counts(10.0)
    assert counts.sum() == 5
    assert (counts[0], counts[1], counts[int(9.99 / BIN_S)]) == (2, 2, 1)


def test_bins_grow_with_the_window_not_with_its_longest_duration() -> None:
    bins = Bins(1e9)
    bins.add_one(5.0)
    assert bins.counts(6.0).nbytes < 100_000
    bins.add_one(500.0)
    counts = bins.counts(600.0)
    assert len(counts) >= 600 / BIN_S and counts.sum() == 2


def test_bins_ignore_events_after_the_duration() -> None:
    bins = Bins(1.0)
    bins.add(np.array([0.5, 50.0]))
    bins.add_one(50.0)
    assert bins.counts(60.0).sum() == 1


@pytest.mark.parametrize("until_s", [0.5, 30.0, 100.0])
def test_bins_counts_reach_the_time(until_s: float) -> None:
    assert len(Bins(100.0).counts(until_s)) > until_s / BIN_S
