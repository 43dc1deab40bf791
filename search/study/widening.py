"""Widen the ranges whose highest value is the best one. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.spec.space import Dimension, Space

#: A value of at least this share of the upper bound is on the edge.
_EDGE_SHARE = 0.9


def widened_highs(space: Space, best: Mapping[str, Any]) -> dict[str, int]:
    """Return the new upper bounds of ranges on whose edge the best point is: twice the old ones.

    Args:
        best: the best point so far; it may be out of bounds.
    """
    return {
        d.name: min(2 * d.high, d.widen_to)
        for d in space.dimensions
        if d.widen_to is not None and d.high < d.widen_to and _is_on_edge(d, best[d.name])
    }


def edge_notes(initial: Space, space: Space, best: Mapping[str, Any]) -> list[str]:
    """Return sentences about ranges that were widened, and about edges that were not passed.

    Args:
        initial: the space as specified.
        space: the space with the ranges that were widened.
        best: the best point.
    """
    notes = []
    for before, after in zip(initial.dimensions, space.dimensions, strict=True):
        if after.high > before.high:
            notes.append(
                f"the range of {after.name} was widened from {before.high} to {after.high}, "
                "because the best value was its highest"
            )
        elif _is_on_edge(after, best[after.name]) and after.widen_to is None:
            notes.append(
                f"the best value of {after.name}, {best[after.name]}, is on the edge of its range; "
                "a higher value may be better"
            )
    return notes


def _is_on_edge(d: Dimension, value: Any) -> bool:
    return not d.choices and isinstance(value, int) and value >= _EDGE_SHARE * d.high
