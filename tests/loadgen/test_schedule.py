"""Tests of the due times of requests."""

import itertools

import numpy as np
import pytest

from loadgen.schedule import Burst, Closed, Constant, Poisson, Share, due_times


def test_due_times_of_a_constant_schedule_interleave() -> None:
    whole = list(due_times(Constant(100), 1.0))
    parts = [list(due_times(Constant(100), 1.0, Share(i, 3))) for i in range(3)]
    assert len(whole) == 100
    assert sorted(itertools.chain(*parts)) == whole
    assert parts[1][0] == pytest.approx(0.01)


def test_due_times_of_poisson_shares_are_independent_and_add_up() -> None:
    parts = [np.array(list(due_times(Poisson(300, 1), 20.0, Share(i, 3)))) for i in range(3)]
    counts = [len(part) for part in parts]
    assert sum(counts) == pytest.approx(6000, rel=0.05)
    assert not set(parts[0]) & set(parts[1])
    gaps = np.diff(parts[0])
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)
    assert list(due_times(Poisson(300, 1), 1.0)) == list(due_times(Poisson(300, 1), 1.0))
    assert list(due_times(Poisson(300, 1), 1.0)) != list(due_times(Poisson(300, 2), 1.0))


def test_due_times_of_a_burst_are_all_zero() -> None:
    parts = [list(due_times(Burst(10), 5.0, Share(i, 3))) for i in range(3)]
    assert [len(part) for part in parts] == [4, 3, 3]
    assert set(itertools.chain(*parts)) == {0.0}


def test_due_times_of_a_long_schedule_are_drawn_lazily() -> None:
    """A million due times are not kept in memory: the first is available at once."""
    assert next(due_times(Poisson(1e6, 0), 1e6)) < 1
    assert next(due_times(Constant(1e6), 1e9)) == 0


@pytest.mark.parametrize("make", [lambda: Constant(0), lambda: Poisson(-1), lambda: Closed(0)])
def test_schedule_refuses_impossible_values(make: object) -> None:
    with pytest.raises(ValueError, match=r"must be positive|at least one"):
        make()  # type: ignore[operator]
