"""The look of all plots, and the labels on their axes. Pure.

Colours are legible on white and on black. Backgrounds are transparent, and the page sets the
colours of text and grid, so that one figure serves light and dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from search.study.diff import flat
from search.trial.result import TrialResult

#: Roles and states keep their colour in every plot.
RECOMMENDED, TODAY, DEFAULT = "#2da44e", "#3b8eea", "#bf8700"
OTHER, FAILED, ACCENT = "#8b949e", "#e5534b", "#a371f7"
SEQUENCE = (TODAY, RECOMMENDED, DEFAULT, ACCENT, FAILED, OTHER, "#39c5cf")
_FONT_SIZE = 13
_TRANSPARENT = "rgba(0,0,0,0)"
_GRID = "rgba(128,128,128,0.25)"
#: An axis has from this number of labels to twice as many.
_MIN_TICKS = 8


def styled(figure: go.Figure, heading: str) -> go.Figure:
    """Give a figure the common look.

    Args:
        heading: what the plot shows; it is in `layout.meta.heading`, for the page to show.
    """
    margin = {"l": 64, "r": 16, "t": 24, "b": 56} | figure.layout.margin.to_plotly_json()
    figure.update_layout(
        template="none",
        meta={"heading": heading},
        margin=margin,
        paper_bgcolor=_TRANSPARENT,
        plot_bgcolor=_TRANSPARENT,
        colorway=SEQUENCE,
        font={"family": "system-ui, sans-serif", "size": _FONT_SIZE},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hovermode="closest",
    )
    lines = {"gridcolor": _GRID, "zerolinecolor": _GRID, "linecolor": _GRID, "automargin": True}
    figure.update_xaxes(title_font_size=_FONT_SIZE, **lines)
    return figure.update_yaxes(title_font_size=_FONT_SIZE, **lines)


def setting_lines(settings: dict[str, Any]) -> str:
    """Return settings as lines of a label."""
    lines = [f"{name}: {value}" for name, value in flat(settings).items()]
    return "<br>".join(lines or ["TorchServe's defaults"])


def trial_label(result: TrialResult) -> str:
    """Return the label of a trial: its number, its origin and its settings."""
    return f"trial {result.number}, {result.origin}<br>{setting_lines(result.config.to_dict())}"


def categories(values: Sequence[Any]) -> tuple[list[int], list[str]]:
    """Return the position of each value on a categorical axis, and the labels of the axis.

    The order is: unset, numbers, texts.
    """
    value_of = {_category(value): value for value in values}

    def order(label: str) -> tuple[bool, bool, float, str]:
        value = value_of[label]
        is_number = isinstance(value, int | float)
        return (value is not None, not is_number, value if is_number else 0, label)

    labels = sorted(value_of, key=order)
    return [labels.index(_category(value)) for value in values], labels


def ticks(labels: Sequence[str]) -> dict[str, Any]:
    """Return the ticks of a categorical axis; with many labels, some of them."""
    step = max(1, len(labels) // _MIN_TICKS)
    return {"tickvals": list(range(0, len(labels), step)), "ticktext": list(labels[::step])}


def _category(value: Any) -> str:
    return "unset" if value is None else str(value)
