"""Widen the ranges whose highest value is the best one. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.spec.dimension import Dimension, setting_of
from search.spec.space import Space
from search.trial.result import TrialResult

#: A value of at least this share of the upper bound is on the edge.
_EDGE_SHARE = 0.9
#: Settings that the memory grows with, and the share of the memory that may be used.
_MEMORY_SETTINGS, MEMORY_LIMIT_SHARE = ("workers", "batch_size"), 0.85


def widened_highs(
    space: Space, best: Mapping[str, Any], memory_share: float | None = None
) -> dict[str, int]:
    """Return the new upper bounds of ranges on whose edge the best point is: twice the old ones.

    Args:
        best: the best point so far; it may be out of bounds.
        memory_share: memory that it uses ÷ memory of the host; None if it is not known. Workers and
            batches grow by no more than what is left.
    """
    highs = {}
    for d in space.dimensions:
        if d.widen_to is None or not _is_on_edge(d, best[d.name]):
            continue
        factor = 2.0
        if memory_share and setting_of(d.name) in _MEMORY_SETTINGS:
            factor = min(factor, MEMORY_LIMIT_SHARE / memory_share)
        if (high := min(int(factor * d.high), d.widen_to)) > d.high:
            highs[d.name] = high
    return highs


def memory_share(result: TrialResult) -> float | None:
    """Return the share of the host's memory that a trial used; None if it is not known."""
    used_mb, memory_mb = result.server.peak_memory_mb, result.host.facts.get("memory_mb")
    return used_mb / memory_mb if used_mb and memory_mb else None


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
                "because the best configuration so far had its highest value"
            )
        elif _is_on_edge(after, best[after.name]) and after.widen_to is None:
            notes.append(_edge_note(after.name, best[after.name], "higher"))
        elif after.varies and not after.choices and best[after.name] == after.low > 1:
            notes.append(_edge_note(after.name, best[after.name], "lower"))
    return notes


def _edge_note(name: str, value: Any, direction: str) -> str:
    return (
        f"the best value of {name}, {value}, is on the edge of its range; a {direction} value may "
        "be better"
    )


def _is_on_edge(d: Dimension, value: Any) -> bool:
    return not d.choices and isinstance(value, int) and value >= _EDGE_SHARE * d.high
