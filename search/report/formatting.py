"""Figures, settings and tables as text. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from search.intervals import Interval
from serving.configuration.config import ServerConfig

_NUMBER = re.compile(r"-?[\d,]*\.?\d+(e-?\d+)?( (%|MiB))?")


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], is_aligned: bool = True
) -> str:
    """Return a table in Markdown.

    Args:
        is_aligned: whether columns of numbers are aligned to the right.
    """
    columns = [[row[index] for row in rows] for index in range(len(header))]
    rules = ["---:" if is_aligned and _is_numeric(column) else "---" for column in columns]
    lines = [header, rules, *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _is_numeric(cells: Sequence[str]) -> bool:
    """Return whether a column has numbers, and beside them only empty cells and dashes."""
    filled = [cell for cell in cells if cell not in ("", "–")]
    return bool(filled) and all(_NUMBER.fullmatch(cell) for cell in filled)


def format_number(value: float | None) -> str:
    """Return three significant digits, more above 1,000; an empty text for None."""
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def format_ratio(ratio: float) -> str:
    """Return how many times as high a rate is: two decimals below 10, else three digits."""
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.3g}" if ratio < 1000 else f"{ratio:.0f}"


def format_memory(memory_mb: float | None) -> str:
    """Return memory with its unit; an empty text for None."""
    return "" if memory_mb is None else f"{memory_mb:,.0f} MiB"


def format_lower_bound(value: float | None) -> str:
    """Return a probability as a percentage with two digits, never rounded up."""
    return "" if value is None else f"{math.floor(10_000 * value) / 100:.2f} %"


def format_share(value: float) -> str:
    """Return a share with three decimals, rounded down: only 1 is "1"."""
    return "1" if value == 1 else f"{math.floor(1000 * value) / 1000:.3f}"


def with_interval(text: str, interval: Interval | None) -> str:
    """Return a text with the bounds of an interval, if there is one."""
    return f"{text} ({format_interval(interval)})" if interval else text


def format_ratio_interval(ratio: Interval) -> str:
    """Return the bounds of a ratio; see `format_ratio`."""
    return f"{format_ratio(ratio.low)} to {format_ratio(ratio.high)}"


def format_interval(interval: Interval) -> str:
    """Return the bounds of an interval; see `format_number`."""
    return f"{format_number(interval.low)} to {format_number(interval.high)}"


def capitalized(text: str) -> str:
    """Return a text with an upper-case first letter; the rest stays."""
    return f"{text[0].upper()}{text[1:]}"


def format_values(values: Mapping[str, object]) -> str:
    """Return names and values on one line."""
    return ", ".join(f"{name}={value}" for name, value in values.items())


def format_settings(config: ServerConfig) -> str:
    """Return the settings of a configuration on one line."""
    parts = []
    for name, value in config.to_dict().items():
        if name == "models":
            for model, settings in value.items():
                parts += [f"{model}.{key}={number}" for key, number in settings.items()]
        elif isinstance(value, dict):
            parts += [f"{key}={text}" for key, text in value.items()]
        else:
            parts.append(f"{name}={value}")
    return ", ".join(parts) or "TorchServe's defaults"
