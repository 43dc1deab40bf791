"""How figures and tables are written. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from search.study.intervals import Interval


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines
    )


def number(value: float | None) -> str:
    """Three significant digits; nothing for None."""
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def share(value: float) -> str:
    """A share to a thousandth, never rounded up: 1 is all of it."""
    return "1" if value == 1 else f"{math.floor(1000 * value) / 1000:.3f}"


def span(interval: Interval | None, form: str = "") -> str:
    """The bounds of an interval; nothing for None."""
    if interval is None:
        return ""
    low, high = (
        format(value, form) if form else number(value) for value in (interval.low, interval.high)
    )
    return f"{low} to {high}"
