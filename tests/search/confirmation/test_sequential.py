"""Critical values of repeated comparisons."""

import math

import numpy as np
import pytest

from search.confirmation.sequential import critical_value, final_critical_value


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


@pytest.mark.parametrize(("look", "looks"), [(1, 40), (5, 40), (13, 20), (27, 40), (40, 40)])
def test_final_critical_value_spends_what_the_earlier_looks_left(look: int, looks: int) -> None:
    random = np.random.default_rng(looks + look)
    sums = np.cumsum(random.standard_normal((20_000, look)), axis=1)
    counts = np.arange(1, look + 1)
    limits = [critical_value(1e6, 2, int(n), looks) for n in counts]
    limits[-1] = final_critical_value(1e6, 2, look, looks)
    exceeded = (np.abs(sums) / np.sqrt(counts) > np.array(limits)).any(axis=1).mean()
    assert 0.043 < exceeded < 0.056


def test_final_critical_value_is_that_of_the_plan_only_at_its_end() -> None:
    assert final_critical_value(1e6, 2, 1, 40) == pytest.approx(1.96, abs=0.001)
    planned = critical_value(1e6, 2, 40, 40)
    assert final_critical_value(1e6, 2, 40, 40) == pytest.approx(planned, abs=0.01)
    assert final_critical_value(1e6, 2, 27, 40) < critical_value(1e6, 2, 27, 27) < planned
    assert final_critical_value(0, 2, 3, 40) == math.inf
