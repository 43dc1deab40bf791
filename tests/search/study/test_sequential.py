"""Critical values of repeated comparisons."""

import math

import numpy as np
import pytest

from search.study.sequential import critical_value


def test_critical_value_of_a_single_look_is_students() -> None:
    assert critical_value(1e6, 2, 1, 1) == pytest.approx(1.96, abs=0.001)
    assert critical_value(10, 2, 1, 1) == pytest.approx(2.228, abs=0.001)
    assert critical_value(0, 2, 1, 1) == math.inf


def test_critical_value_of_more_configurations_is_larger() -> None:
    values = [critical_value(30, count, 5, 5) for count in (1, 2, 3, 4)]
    assert values[0] == values[1] < values[2] < values[3]


@pytest.mark.parametrize("looks", [1, 2, 5, 8, 13, 40])
def test_critical_value_is_exceeded_by_chance_in_5_percent_of_all_looks(looks: int) -> None:
    random = np.random.default_rng(looks)
    sums = np.cumsum(random.standard_normal((20_000, looks)), axis=1)
    counts = np.arange(1, looks + 1)
    limits = np.array([critical_value(1e6, 2, int(look), looks) for look in counts])
    exceeded = (np.abs(sums) / np.sqrt(counts) > limits).any(axis=1).mean()
    assert 0.043 < exceeded < 0.056
