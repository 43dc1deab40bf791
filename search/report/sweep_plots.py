"""The plots of a sweep: a heat map for each load. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import plotly.graph_objects as go

from search.report.plot_style import categories, styled
from search.report.sweep_tables import MAIN_COLUMN, varied_settings
from search.trial.result import TrialResult


def heat_maps(results: Sequence[TrialResult]) -> dict[str, go.Figure]:
    """Draw each load's main column over the two settings with the largest effect on it."""
    settings = varied_settings(results)
    if len(settings) < 2:
        return {}
    plots = {}
    for name in dict.fromkeys(load.load for r in results for load in r.loads):
        loads = [
            (index, load)
            for index, r in enumerate(results)
            for load in r.loads
            if load.load == name and getattr(load, MAIN_COLUMN[load.kind]) is not None
        ]
        if not loads:
            continue
        column = MAIN_COLUMN[loads[0][1].kind]
        indices = [index for index, _ in loads]
        figures = [getattr(load, column) for _, load in loads]
        values_of = {
            setting: [values[index] for index in indices] for setting, values in settings.items()
        }
        across, up = _most_effective(values_of, figures)
        heading = f"{name}: {column}"
        if rest := [setting for setting in settings if setting not in (across, up)]:
            heading += f", the median over {', '.join(rest)}"
        figure = _heat_map(column, figures, values_of[across], values_of[up])
        figure.update_xaxes(title=across, type="category")
        figure.update_yaxes(title=up, type="category")
        plots[f"load: {name}"] = styled(figure, heading)
    return plots


def _heat_map(
    column: str, figures: Sequence[float], xs: Sequence[Any], ys: Sequence[Any]
) -> go.Figure:
    columns, x_labels = categories(xs)
    rows, y_labels = categories(ys)
    cells: dict[tuple[int, int], list[float]] = {}
    for x, y, figure in zip(columns, rows, figures, strict=True):
        cells.setdefault((x, y), []).append(figure)
    return go.Figure(
        go.Heatmap(
            x=x_labels,
            y=y_labels,
            z=[
                [median(cells[x, y]) if (x, y) in cells else None for x in range(len(x_labels))]
                for y in range(len(y_labels))
            ],
            colorscale="Viridis",
            reversescale=column.endswith("_s"),
            texttemplate="%{z:.3g}",
            colorbar={"title": column},
        )
    )


def _most_effective(
    values_of: Mapping[str, Sequence[Any]], figures: Sequence[float]
) -> tuple[str, str]:
    """Return the two settings with the largest effect, in the order of `values_of`."""
    effects = {
        setting: _effect(list(map(str, values)), figures) for setting, values in values_of.items()
    }
    largest = sorted(effects, key=lambda setting: -effects[setting])[:2]
    first, second = sorted(largest, key=list(effects).index)
    return first, second


def _effect(values: Sequence[str], figures: Sequence[float]) -> float:
    """Return the ratio of the highest to the lowest median over a setting's values."""
    figures_at: dict[str, list[float]] = {}
    for value, figure in zip(values, figures, strict=True):
        figures_at.setdefault(value, []).append(figure)
    medians = [median(group) for group in figures_at.values()]
    return max(medians) / (min(medians) or 1e-9)
