"""The plots of a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from search.report.sweep_tables import MAIN_COLUMN, varied_settings
from search.study.diff import flat
from search.study.outcome import Outcome
from search.study.ranking import finalists
from search.study.run_folder import Run
from search.trial.result import PHASES, TrialResult, TrialState

#: The number of best configurations whose load curves are drawn.
_CURVES = 3
#: An axis has from this number of labels to twice as many.
_MIN_TICKS = 8
_BEST, _OTHER, _FAILED, _REFERENCE = "#1a7f37", "#8b949e", "#cf222e", "#0969da"


def build_plots(outcome: Outcome) -> list[tuple[str, go.Figure]]:
    """Return each plot that the run has data for, with its heading."""
    by_phase = ("Seconds by phase", _phase_seconds)
    if any(result.loads for result in outcome.results):
        return [*_heat_maps(outcome.results), *_drawn(outcome, [by_phase])]
    return _drawn(
        outcome,
        [
            ("The search", _history),
            ("Load curves of the best and the reference", _load_curves),
            ("All settings together", _parallel_coordinates),
            ("Each setting", _scatter_by_setting),
            ("Importance", _importance),
            by_phase,
        ],
    )


def _drawn(
    outcome: Outcome, plots: Sequence[tuple[str, Callable[[Outcome], go.Figure | None]]]
) -> list[tuple[str, go.Figure]]:
    figures = [(heading, draw(outcome)) for heading, draw in plots]
    return [(heading, _styled(figure)) for heading, figure in figures if figure is not None]


def _styled(figure: go.Figure) -> go.Figure:
    return figure.update_layout(
        template="plotly_white",
        margin={"l": 56, "r": 16, "t": 32, "b": 48} | figure.layout.margin.to_plotly_json(),
        legend={"orientation": "h", "y": -0.2},
        font={"family": "system-ui, sans-serif"},
    )


def _label(result: TrialResult) -> str:
    lines = [f"{name}: {value}" for name, value in flat(result.config.to_dict()).items()]
    settings = "<br>".join(lines or ["TorchServe's defaults"])
    return f"trial {result.number}, {result.origin}<br>{settings}"


def _history(outcome: Outcome) -> go.Figure | None:
    """Draw rates by trial: pruned trials at their capacity, failed ones at 0."""
    if not outcome.results:
        return None
    figure = go.Figure()
    groups: tuple[tuple[str, TrialState, Callable[[TrialResult], float], str, str], ...] = (
        ("sustained", TrialState.COMPLETE, lambda r: r.sustained_rps or 0.0, _BEST, "circle"),
        (
            "pruned (estimated capacity)",
            TrialState.PRUNED,
            lambda r: r.capacity_rps or 0.0,
            _OTHER,
            "x",
        ),
        ("failed", TrialState.FAILED, lambda r: 0.0, _FAILED, "triangle-down"),
    )
    for name, state, height, color, symbol in groups:
        results = [r for r in outcome.results if r.state is state]
        if results:
            figure.add_scatter(
                x=[r.number for r in results],
                y=[height(r) for r in results],
                mode="markers",
                name=name,
                marker={"color": color, "symbol": symbol, "size": 9},
                text=[_label(r) for r in results],
                hovertemplate="%{y:.1f} rps<br>%{text}<extra></extra>",
            )
    best, steps = 0.0, []
    for result in outcome.results:
        best = max(best, result.sustained_rps or 0.0)
        steps.append(best)
    figure.add_scatter(
        x=[r.number for r in outcome.results],
        y=steps,
        mode="lines",
        name="best so far",
        line={"color": _BEST, "shape": "hv", "width": 1},
        hoverinfo="skip",
    )
    if outcome.reference is not None and outcome.reference.sustained_rps:
        figure.add_hline(
            outcome.reference.sustained_rps,
            line={"dash": "dash", "color": _REFERENCE},
            annotation_text=f"the {outcome.reference.origin}",
        )
    return figure.update_xaxes(title="trial").update_yaxes(title="rps", rangemode="tozero")


def _load_curves(outcome: Outcome) -> go.Figure | None:
    """Draw the answered rate and the p99 latency by offered rate."""
    best = {config.digest for config in finalists(outcome.results, _CURVES)}
    newest = {r.config.digest: r for r in outcome.results if r.config.digest in best}
    shown = list(newest.values())
    if outcome.reference is not None and outcome.reference.number not in [r.number for r in shown]:
        shown.append(outcome.reference)
    figure = make_subplots(1, 2, subplot_titles=("achieved rate, rps", "p99 latency, s"))
    colors = (_BEST, "#bf8700", "#8250df", _REFERENCE)
    has_curves = False
    for result, color in zip(shown, colors, strict=False):
        windows = _medians_by_rate(outcome.run, result.number)
        if not windows:
            continue
        has_curves = True
        rates, answered, p99 = zip(*windows, strict=True)
        name = f"trial {result.number}, {result.origin}"
        for column, values in ((1, answered), (2, p99)):
            figure.add_scatter(
                x=rates,
                y=values,
                mode="lines+markers",
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                line={"color": color},
                row=1,
                col=column,
            )
    if not has_curves:
        return None
    return figure.update_xaxes(title="offered rate, rps").update_yaxes(rangemode="tozero")


def _medians_by_rate(run: Run, number: int) -> list[tuple[float, float, float]]:
    """Return each offered rate with the median answered rate, rps, and p99 latency, s."""
    windows: dict[float, list[tuple[float, float]]] = {}
    for window in run.windows(number):
        rate, p99 = window["schedule"].get("rate_rps"), window["latency_s"].get("p99")
        if rate is not None and p99 is not None:
            windows.setdefault(rate, []).append((window["goodput_rps"], p99))
    return [(rate, *map(median, zip(*windows[rate], strict=True))) for rate in sorted(windows)]


def _rates(results: Sequence[TrialResult]) -> list[float]:
    """Return the sustained rate of each trial; the capacity of a pruned one."""
    return [
        r.sustained_rps or (r.capacity_rps or 0.0) * (r.state is TrialState.PRUNED) for r in results
    ]


def _configured(outcome: Outcome) -> list[TrialResult]:
    """Return the trials that set anything; TorchServe's default would only add "unset"."""
    return [r for r in outcome.results if r.config.to_dict()]


def _parallel_coordinates(outcome: Outcome) -> go.Figure | None:
    results = _configured(outcome)
    varied = varied_settings(results)
    if len(results) < 2 or not varied:
        return None
    dimensions: list[dict[str, Any]] = []
    for name, values in varied.items():
        positions, labels = _axis(values)
        dimensions.append({"label": name, "values": positions, **_ticks(labels)})
    rates = _rates(results)
    line = {"color": rates, "colorscale": "Viridis", "showscale": False}
    dimensions.append({"label": "rps", "values": rates})
    figure = go.Figure(go.Parcoords(dimensions=dimensions, line=line, labelangle=-20))
    return figure.update_layout(margin={"l": 80, "r": 80, "t": 110})


def _axis(values: Sequence[Any]) -> tuple[list[int], list[str]]:
    """Return the position of each value on a categorical axis, and the labels of the axis.

    The order is: unset, numbers, texts.
    """
    value_of = {_label_of(value): value for value in values}

    def order(label: str) -> tuple[bool, bool, float, str]:
        value = value_of[label]
        is_number = isinstance(value, int | float)
        return (value is not None, not is_number, value if is_number else 0, label)

    labels = sorted(value_of, key=order)
    return [labels.index(_label_of(value)) for value in values], labels


def _label_of(value: Any) -> str:
    return "unset" if value is None else str(value)


def _ticks(labels: Sequence[str]) -> dict[str, Any]:
    step = max(1, len(labels) // _MIN_TICKS)
    return {"tickvals": list(range(0, len(labels), step)), "ticktext": list(labels[::step])}


def _scatter_by_setting(outcome: Outcome) -> go.Figure | None:
    results = _configured(outcome)
    varied = varied_settings(results)
    if not varied:
        return None
    columns = min(3, len(varied))
    rows = -(-len(varied) // columns)
    figure = make_subplots(rows, columns, subplot_titles=list(varied), shared_yaxes=True)
    rates = _rates(results)
    colors = {TrialState.COMPLETE: _BEST, TrialState.PRUNED: _OTHER, TrialState.FAILED: _FAILED}
    for index, values in enumerate(varied.values()):
        cell = {"row": index // columns + 1, "col": index % columns + 1}
        positions, labels = _axis(values)
        figure.add_scatter(
            x=positions,
            y=rates,
            mode="markers",
            marker={"color": [colors[r.state] for r in results]},
            text=[_label(r) for r in results],
            hovertemplate="%{y:.1f} rps<br>%{text}<extra></extra>",
            showlegend=False,
            **cell,
        )
        figure.update_xaxes(**_ticks(labels), **cell)
    return figure.update_layout(height=260 * rows)


def _importance(outcome: Outcome) -> go.Figure | None:
    if not outcome.importance:
        return None
    shares = dict(sorted(outcome.importance.items(), key=lambda item: item[1]))
    figure = go.Figure(go.Bar(x=list(shares.values()), y=list(shares), orientation="h"))
    figure.update_traces(marker_color=_REFERENCE).update_layout(height=140 + 36 * len(shares))
    return figure.update_xaxes(title="share of the variance of the rates", tickformat=".0%")


def _phase_seconds(outcome: Outcome) -> go.Figure | None:
    phases = [phase for phase in PHASES if any(phase in r.timing.phases_s for r in outcome.results)]
    if not phases:
        return None
    figure = go.Figure()
    for phase in phases:
        figure.add_bar(
            x=[r.number for r in outcome.results],
            y=[r.timing.phases_s.get(phase, 0.0) for r in outcome.results],
            name=phase,
        )
    return figure.update_layout(barmode="stack").update_xaxes(title="trial").update_yaxes(title="s")


def _heat_maps(results: Sequence[TrialResult]) -> list[tuple[str, go.Figure]]:
    """Draw each load's main column over the two settings with the largest effect on it."""
    settings = varied_settings(results)
    if len(settings) < 2:
        return []
    plots = []
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
        plots.append((heading, _styled(figure)))
    return plots


def _heat_map(
    column: str, figures: Sequence[float], xs: Sequence[Any], ys: Sequence[Any]
) -> go.Figure:
    columns, x_labels = _axis(xs)
    rows, y_labels = _axis(ys)
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
