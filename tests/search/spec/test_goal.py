"""The objective of a specification, its limits, and the contradictions that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search.errors import SpecError
from search.spec.loading import load_spec
from search.spec.schema import StudySpec
from tests.specifications import make_model_files, write_spec


def spec_of(folder: Path, **sections: Any) -> StudySpec:
    return load_spec(write_spec(make_model_files(folder), **sections))


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"goal": {"objective": "latency"}}, "goal.for_rps: is missing; the objective `latency`"),
        ({"goal": {"objective": "footprint"}}, "goal.for_rps: is missing; the objective `foot"),
        ({"goal": {"for_rps": 10}}, "goal.for_rps: the objective `rate` looks for the highest"),
        ({"goal": {"headroom": 0.1}}, "goal.headroom: the objective `rate` looks for the highest"),
        ({"goal": {"objective": "cost"}}, "goal.objective: must be 'rate', 'latency' or 'foot"),
        ({"goal": {"p99_s": 1.0}}, "goal.p99_s: is now goal.limits.p99_s"),
        (
            {"goal": {"objective": "latency", "for_rps": 90, "headroom": 0.5, "max_rate_rps": 100}},
            "goal.for_rps: needs a sustained rate of 180 rps",
        ),
        (
            {"goal": {"limits": {"p99_s": 0.5, "p95_s": 0.6}}},
            "goal.limits.p95_s: 0.6 is above p99_s .0.5.",
        ),
        (
            {"goal": {"limits": {"p99_s": 12.0}}},
            "goal.limits.p99_s: must be below load.timeout_s, which is 10",
        ),
        (
            {
                "goal": {"limits": {"memory_mb": 900}},
                "serving": {"limits": {"memory_mb": 800}},
            },
            "goal.limits.memory_mb: is above serving.limits.memory_mb, which is 800",
        ),
        (
            {"goal": {"limits": {"workers": 1}}, "space": {"workers": {"low": 2, "high": 4}}},
            "goal.limits.workers: is below the fewest workers of the space, 2 .got 1.",
        ),
        (
            {
                "goal": {"objective": "latency", "for_rps": 5},
                "search": {"target_rps": 9},
            },
            "search.target_rps: ends a search for the highest rate",
        ),
        (
            {
                "goal": {"objective": "latency", "for_rps": 5},
                "sweep": {"loads": [{"kind": "sustained"}]},
                "space": {"workers": [1, 2]},
            },
            "goal.objective: a sweep optimizes nothing",
        ),
    ],
)
def test_load_spec_refuses_a_contradictory_goal_in_one_sentence(
    tmp_path: Path, sections: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SpecError, match=sentence) as caught:
        spec_of(tmp_path, **sections)
    assert len(caught.value.problems) == 1


def test_required_rps_leaves_the_headroom_of_the_sustained_rate_free(tmp_path: Path) -> None:
    goals = [
        {"objective": "latency", "for_rps": 70.0},
        {"objective": "footprint", "for_rps": 70.0},
        {"objective": "footprint", "for_rps": 70.0, "headroom": 0.5},
    ]
    required = [spec_of(tmp_path, goal=goal).goal.required_rps for goal in goals]
    assert required == [70.0, pytest.approx(100.0), 140.0]
    assert spec_of(tmp_path).goal.required_rps is None


def test_rate_goal_holds_the_limits_and_the_rate(tmp_path: Path) -> None:
    limits = {"p99_s": 0.5, "p95_s": 0.4, "memory_mb": 900, "workers": 2}
    section = {"objective": "footprint", "for_rps": 70.0, "headroom": 0.3, "limits": limits}
    spec = spec_of(tmp_path, goal=section)
    goal = spec.rate_goal()
    assert (goal.p99_s, goal.p95_s, goal.for_rps) == (0.5, 0.4, 70.0)
    assert spec.goal.limits.given == limits


@pytest.mark.parametrize(
    ("space", "highest"),
    [
        ({}, 3),
        ({"workers": {"low": 1, "high": 8, "widen_to": 16}}, 3),
        ({"workers": [1, 2, 4]}, 2),
        ({"workers": 2}, 2),
    ],
)
def test_build_space_has_no_configuration_with_more_workers_than_the_limit(
    tmp_path: Path, space: dict[str, Any], highest: int
) -> None:
    spec = spec_of(tmp_path, goal={"limits": {"workers": 3}}, space=space)
    built = spec.build_space(cores=4)
    points = [{d.name: d.choices[-1] if d.choices else d.high for d in built.dimensions}]
    points += built.recommended_points()
    assert max(built.workers(built.config(point)) for point in points) == highest
    assert all((d.widen_to or 3) <= 3 for d in built.dimensions if d.name == "workers")
