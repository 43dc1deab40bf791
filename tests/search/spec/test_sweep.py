"""The section `sweep` of a specification."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from search.errors import SpecError
from search.spec.loading import parse_spec
from tests.sweeps import LOADS, sweep_spec


def test_spec_points_repeats_every_point_in_an_order_of_the_seed(tmp_path: Path) -> None:
    points = sweep_spec(tmp_path).points()
    counts = Counter(point.digest for point in points)
    assert len(counts) == 4 and set(counts.values()) == {3}
    assert points == sweep_spec(tmp_path).points(), "the same seed gives the same order"
    first = points[:4]
    assert len({point.digest for point in first}) < 4 or first != sorted(points, key=str)[:4]
    assert all(point.netty_threads is None for point in points), "unnamed settings stay unset"


def test_spec_points_combines_listed_points_with_the_space(tmp_path: Path) -> None:
    space = {"max_batch_delay_ms": 50, "properties": {"prefer_direct_buffer": True}}
    listed = [
        {"workers": 1, "batch_size": 8, "environment": {"A": "x"}},
        {"workers": 2, "batch_size": 16, "environment": {"A": "y"}},
        {"workers": 2, "batch_size": 8, "environment": {"A": "y"}},
    ]
    spec = sweep_spec(tmp_path, space=space, sweep={"loads": LOADS, "points": listed, "repeats": 2})
    points = spec.points()
    settings = {(p.workers, p.batch_size, p.environment["A"], p.max_batch_delay_ms) for p in points}
    assert len(points) == 6
    assert settings == {(1, 8, "x", 50), (2, 16, "y", 50), (2, 8, "y", 50)}
    assert all(p.properties == {"prefer_direct_buffer": "true"} for p in points)
    again = parse_spec(spec.resolved(), tmp_path)
    assert again.points() == points, "spec.yaml of the run has the same points"
    assert again.resolved() == spec.resolved()


def sections_with(*points: dict[str, Any]) -> dict[str, Any]:
    return {"sweep": {"loads": LOADS, "points": list(points)}}


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"sweep": {"loads": []}}, "sweep.loads: is empty"),
        ({"sweep": {"loads": [{"kind": "interval"}]}}, "needs interval_ms or rate_rps"),
        ({"sweep": {"loads": [{"kind": "burst"}]}}, "requests: is missing"),
        ({"sweep": {"loads": [{"kind": "flood"}]}}, "sweep.loads.0"),
        ({"space": {"batch_size": {"low": 1, "high": 8}}}, "give a list of choices"),
        (sections_with({"worker": 1}), "sweep.points.0.worker: unknown key"),
        (sections_with({"workers": [1, 2]}), "must be one value, not a range, a list or null"),
        (sections_with({"workers": None}), "must be one value, not a range, a list or null"),
        (sections_with({"workers": 1}, {"mkl_threads": 1}), "must name the same settings"),
        (sections_with({"netty_threads": 1}), "remove space.batch_size"),
    ],
)
def test_load_spec_refuses_invalid_sweep(
    tmp_path: Path, sections: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SpecError, match=sentence):
        sweep_spec(tmp_path, **sections)
