"""Shares as percentages. Pure."""

from __future__ import annotations


def format_percent(share: float, digits: int = 0) -> str:
    """Return a share of 1 as a percentage: 0.95 is "95 %"."""
    return f"{100 * share:.{digits}f} %"
