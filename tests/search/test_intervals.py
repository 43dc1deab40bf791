"""The coverage of the intervals."""

import math

import numpy as np
import pytest

from search.intervals import Interval, mean_interval, prediction_interval, ratio_interval


def test_intervals_cover_in_95_percent_of_samples() -> None:
    random = np.random.default_rng(0)
    covered = {"mean": 0, "next value": 0}
    for _ in range(2000):
        *values, next_value = np.exp(random.normal(5, 0.1, 6))
        mean, prediction = mean_interval(values), prediction_interval(values)
        assert mean is not None and prediction is not None
        covered["mean"] += mean.low <= math.exp(5) <= mean.high
        covered["next value"] += prediction.low <= next_value <= prediction.high
    assert covered["mean"] / 2000 == pytest.approx(0.95, abs=0.015)
    assert covered["next value"] / 2000 == pytest.approx(0.95, abs=0.015)


def test_intervals_are_none_for_fewer_than_two_values() -> None:
    assert mean_interval([100.0]) is None and prediction_interval([]) is None


def test_ratio_interval_covers_the_ratio_in_95_percent_of_unpaired_samples() -> None:
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(500):
        ours, theirs = (np.exp(random.normal(mean, 0.1, 5)) for mean in (0.5, 0.0))
        interval = ratio_interval(list(ours), list(theirs))
        assert interval is not None
        covered += interval.low <= np.exp(0.5) <= interval.high
    assert covered / 500 == pytest.approx(0.95, abs=0.03)
    assert ratio_interval([1.0], [2.0, 2.1]) is None


def test_interval_inverse_is_that_of_one_divided_by_the_quantity() -> None:
    assert Interval(0.5, 0.25, 0.8).inverse == Interval(2.0, 1.25, 4.0)
