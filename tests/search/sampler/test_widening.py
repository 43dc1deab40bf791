"""Ranges whose highest value is the best one."""

import pytest

from search.sampler.widening import edge_notes, memory_share, widened_highs
from search.spec.dimension import Dimension
from search.spec.space_building import build_space
from tests.results import trial_result

SPACE = build_space({"batch_size": Dimension("", 1, 64)}, 4)
BEST = {**SPACE.nearest_point(), "workers": 8, "netty_threads": 2, "netty_client_threads": 2}


@pytest.mark.parametrize(
    ("best", "highs"),
    [
        pytest.param({"workers": 8}, {"workers": 16}, id="on the edge"),
        pytest.param({"workers": 7}, {}, id="below the edge"),
        pytest.param({"workers": 12}, {"workers": 16}, id="out of bounds"),
        pytest.param({"workers": 2, "batch_size": 64}, {}, id="a range of the user"),
        pytest.param({"workers": 2, "mkl_threads": 4}, {}, id="never more threads than cores"),
    ],
)
def test_widened_highs_double_the_edge(best: dict[str, int], highs: dict[str, int]) -> None:
    assert widened_highs(SPACE, {**BEST, "mkl_threads": 1, **best}) == highs


@pytest.mark.parametrize(
    ("share", "highs"),
    [
        pytest.param(0.2, {"workers": 16}, id="enough memory"),
        pytest.param(0.5, {"workers": 13}, id="as far as it goes"),
        pytest.param(0.84, {}, id="none left"),
    ],
)
def test_widened_highs_respect_the_memory(share: float, highs: dict[str, int]) -> None:
    assert widened_highs(SPACE, {**BEST, "mkl_threads": 1}, share) == highs


def test_widened_highs_respect_the_memory_with_another_model() -> None:
    space = build_space({"models.other.workers": Dimension("", 1, 8, widen_to=64)}, 4)
    best = {**space.nearest_point(), "models.other.workers": 8}
    best |= {"workers": 2, "netty_threads": 2, "netty_client_threads": 2, "mkl_threads": 1}
    assert widened_highs(space, best) == {"models.other.workers": 16}
    assert widened_highs(space, best, 0.5) == {"models.other.workers": 13}


def test_memory_share_is_that_of_the_host() -> None:
    result = trial_result(0, 5.0, peak_memory_mb=2000, facts={"memory_mb": 8000})
    assert memory_share(result) == 0.25
    assert memory_share(trial_result(0, 5.0)) is None


def test_widened_highs_end_at_the_limit() -> None:
    space = SPACE.widened({"workers": 256})
    assert widened_highs(space, {**BEST, "workers": 256}) == {}


def test_edge_notes_name_widened_ranges_and_edges_of_the_user() -> None:
    widened = SPACE.widened({"workers": 16})
    notes = edge_notes(SPACE, widened, {**BEST, "workers": 12, "batch_size": 64})
    assert notes == [
        "the range of workers was widened from 8 to 16, because the best configuration so far had its highest value",
        "the best value of batch_size, 64, is on the edge of its range; a higher value may be better",
    ]
    assert edge_notes(SPACE, SPACE, {**BEST, "workers": 2, "batch_size": 8}) == []


@pytest.mark.parametrize(("low", "is_noted"), [(1, False), (8, True)])
def test_edge_notes_name_a_lower_edge_of_the_user(low: int, is_noted: bool) -> None:
    space = build_space({"batch_size": Dimension("", low, 64)}, 4)
    notes = edge_notes(space, space, {**BEST, "workers": 2, "batch_size": low})
    note = f"the best value of batch_size, {low}, is on the edge of its range; a lower value may be better"
    assert notes == ([note] if is_noted else [])
