"""The choice of a configuration by `--pick`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from search.answer.operating_points import OperatingPoint, Role
from search.answer.picking import limit_notes, pick, pick_or_recommended, rate_within
from search.errors import CommandError, RunError
from tests.search.answer.points import latencies, point


@pytest.fixture
def points() -> list[OperatingPoint]:
    fast = {0.5: 0.3, 0.9: 0.9, 1.0: 1.5}
    return [
        point(3, 100, 0.2, trials=(3, 5), latency=latencies(100, {1.0: 0.2})),
        point(4, 180, 0.5, latency=latencies(180, {1.0: 0.5}), roles=frozenset({Role.KNEE})),
        point(6, 200, 1.5, latency=latencies(200, fast), roles=frozenset({Role.MAX})),
        point(9, 300, 0.1, is_measured=False),
    ]


@pytest.mark.parametrize(
    ("choice", "number"),
    [("max", 6), ("knee", 4), ("p99=0.5", 4), ("p99=0.25", 3), ("p99=1", 6), ("trial=5", 3)],
)
def test_pick_chooses_a_measured_point(
    points: list[OperatingPoint], choice: str, number: int
) -> None:
    assert pick(points, choice).number == number


def test_pick_counts_the_rate_up_to_which_the_limit_holds(points: list[OperatingPoint]) -> None:
    # Trial 6 holds 0.4 s up to a share of 0.567: 113 rps, more than trial 3 in all.
    assert pick(points, "p99=0.4").number == 6


def test_pick_names_the_lowest_p99_if_none_holds_the_limit(points: list[OperatingPoint]) -> None:
    with pytest.raises(RunError, match=r"0.2 s, of trial 3 at 100 rps"):
        pick(points, "p99=0.1")


@pytest.mark.parametrize(
    "choice", ["", "fast", "p99", "p99=", "p99=-1", "p99=nan", "p99=inf", "trial=x", "recommended"]
)
def test_pick_refuses_other_texts(points: list[OperatingPoint], choice: str) -> None:
    with pytest.raises(CommandError, match="--pick must be"):
        pick(points, choice)


def test_pick_ignores_the_latency_at_a_far_lower_rate(points: list[OperatingPoint]) -> None:
    """A window there has few requests, and its p99 is that of the slowest."""
    lower = latencies(180, {0.01: 5.0, 0.5: 0.2, 1.0: 0.5})
    with_lower = replace(points[1], latency=lower)
    assert pick([with_lower], "p99=0.5").number == 4
    assert rate_within(with_lower, 0.5) == pytest.approx(180)


def test_pick_refuses_what_is_not_there(points: list[OperatingPoint]) -> None:
    for trial in (9, 77):
        with pytest.raises(RunError, match=f"trial {trial} does not exist"):
            pick(points, f"trial={trial}")
    with pytest.raises(RunError, match="no knee"):
        pick(points[:1], "knee")
    with pytest.raises(RunError, match="no trial sustained any rate"):
        pick([], "max")


def test_limit_notes_name_the_rate_up_to_which_the_limit_holds(
    points: list[OperatingPoint],
) -> None:
    (note,) = limit_notes(points[2], "p99=0.9")
    assert note == (
        "trial 6 sustains 200 rps, and its p99 latency is within 0.9 s up to 180 rps: servetune "
        "plan --p99 0.9 counts with that"
    )
    assert limit_notes(points[2], "max") == []


def test_pick_or_recommended_says_that_nothing_meets_the_goal(points: list[OperatingPoint]) -> None:
    with pytest.raises(RunError, match="no configuration meets the goal; use --pick max"):
        pick_or_recommended(points, None)
    with pytest.raises(RunError, match="no trial sustained any rate"):
        pick_or_recommended([], None)
