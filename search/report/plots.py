"""A run's plots, by plotly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from search.report.sweep_tables import SHOWN, varied_settings
from search.study.diff import flat
from search.study.outcome import Outcome
from search.study.ranking import finalists
from search.study.run_folder import Run
from search.trial.result import PHASES, TrialResult, TrialState

#: Of a search so many best configurations have their load curves drawn.
_CURVES = 3
#: An axis has about so many texts, and at most twice as many.
_TICKS = 8
_BEST, _OTHER, _FAILED, _REFERENCE = "#1a7f37", "#8b949e", "#cf222e", "#0969da"


def plots(found: Outcome) -> list[tuple[str, go.Figure]]:
    """Each plot with its heading; those that this run has something for."""
    if any(result.loads for result in found.results):
        return [*_heat_maps(found.results), *_plot("Where the seconds went", _seconds, found)]
    return [
        *_plot("The search", _history, found),
        *_plot("Load curves of the best and the reference", _load_curves, found),
        *_plot("All settings together", _parallel, found),
        *_plot("Each setting", _slices, found),
        *_plot("Importance", _importance, found),
        *_plot("Where the seconds went", _seconds, found),
    ]


def _plot(
    heading: str, draw: Callable[[Outcome], go.Figure | None], found: Outcome
) -> list[tuple[str, go.Figure]]:
    figure = draw(found)
    if figure is None:
        return []
    return [(heading, _styled(figure))]


def _styled(figure: go.Figure) -> go.Figure:
    return figure.update_layout(
        template="plotly_white",
        margin={"l": 56, "r": 16, "t": 32, "b": 48} | figure.layout.margin.to_plotly_json(),
        legend={"orientation": "h", "y": -0.2},
        font={"family": "system-ui, sans-serif"},
    )


def _label(result: TrialResult) -> str:
    lines = [f"{name}: {value}" for name, value in flat(result.config.to_dict()).items()]
    return f"trial {result.number}, {result.origin}<br>" + "<br>".join(lines or ["nothing set"])


def _history(found: Outcome) -> go.Figure | None:
    """Rates by trial; pruned ones at their capacity, failed ones at nothing."""
    if not found.results:
        return None
    figure = go.Figure()
    groups: tuple[tuple[str, TrialState, Callable[[TrialResult], float], str, str], ...] = (
        ("sustained", TrialState.COMPLETE, lambda r: r.sustained_rps or 0.0, _BEST, "circle"),
        (
            "pruned, at its capacity",
            TrialState.PRUNED,
            lambda r: r.capacity_rps or 0.0,
            _OTHER,
            "x",
        ),
        ("failed", TrialState.FAILED, lambda r: 0.0, _FAILED, "triangle-down"),
    )
    for name, state, height, color, symbol in groups:
        there = [r for r in found.results if r.state is state]
        if there:
            figure.add_scatter(
                x=[r.number for r in there],
                y=[height(r) for r in there],
                mode="markers",
                name=name,
                marker={"color": color, "symbol": symbol, "size": 9},
                text=[_label(r) for r in there],
                hovertemplate="%{y:.1f} rps<br>%{text}<extra></extra>",
            )
    best, steps = 0.0, []
    for result in found.results:
        best = max(best, result.sustained_rps or 0.0)
        steps.append(best)
    figure.add_scatter(
        x=[r.number for r in found.results],
        y=steps,
        mode="lines",
        name="best so far",
        line={"color": _BEST, "shape": "hv", "width": 1},
        hoverinfo="skip",
    )
    if found.reference is not None and found.reference.sustained_rps:
        figure.add_hline(
            found.reference.sustained_rps,
            line={"dash": "dash", "color": _REFERENCE},
            annotation_text=f"the {found.reference.origin}",
        )
    return figure.update_xaxes(title="trial").update_yaxes(title="rps", rangemode="tozero")


def _load_curves(found: Outcome) -> go.Figure | None:
    """What was answered and how late, by the rate that was offered."""
    best = {config.digest for config in finalists(found.results, _CURVES)}
    newest = {r.config.digest: r for r in found.results if r.config.digest in best}
    shown = list(newest.values())
    if found.reference is not None and found.reference.number not in [r.number for r in shown]:
        shown.append(found.reference)
    figure = make_subplots(1, 2, subplot_titles=("answered, rps", "p99 latency, s"))
    colors = (_BEST, "#bf8700", "#8250df", _REFERENCE)
    drawn = False
    for result, color in zip(shown, colors, strict=False):
        windows = _offered(found.run, result.number)
        if not windows:
            continue
        drawn = True
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
    if not drawn:
        return None
    return figure.update_xaxes(title="offered, rps").update_yaxes(rangemode="tozero")


def _offered(run: Run, number: int) -> list[tuple[float, float, float]]:
    """By offered rate: the rate, the medians of what was answered and of the p99 latency."""
    at: dict[float, list[tuple[float, float]]] = {}
    for window in run.windows(number):
        rate, p99 = window["schedule"].get("rate_rps"), window["latency_s"].get("p99")
        if rate is not None and p99 is not None:
            at.setdefault(rate, []).append((window["goodput_rps"], p99))
    return [(rate, *map(median, zip(*at[rate], strict=True))) for rate in sorted(at)]


def _rates(results: Sequence[TrialResult]) -> list[float]:
    """What each sustained, or would have at most."""
    return [
        r.sustained_rps or (r.capacity_rps or 0.0) * (r.state is TrialState.PRUNED) for r in results
    ]


def _bullets(found: Outcome) -> list[TrialResult]:
    """The trials that set what others set too."""
    return [r for r in found.results if r.config.to_dict()]


def _parallel(found: Outcome) -> go.Figure | None:
    results = _bullets(found)
    varied = varied_settings(results)
    if len(results) < 2 or not varied:
        return None
    dimensions: list[dict[str, Any]] = []
    for name, values in varied.items():
        places, texts = _axis(values)
        dimensions.append({"label": name, "values": places, **_ticks(texts)})
    rates = _rates(results)
    line = {"color": rates, "colorscale": "Viridis", "showscale": False}
    dimensions.append({"label": "rps", "values": rates})
    figure = go.Figure(go.Parcoords(dimensions=dimensions, line=line, labelangle=-20))
    return figure.update_layout(margin={"l": 80, "r": 80, "t": 110})


def _axis(values: Sequence[Any]) -> tuple[list[int], list[str]]:
    """Each value's place, and the text of each place: what is unset, numbers, anything else."""
    found = {_text(value): value for value in values}

    def order(text: str) -> tuple[bool, bool, float, str]:
        value = found[text]
        is_number = isinstance(value, int | float)
        return (value is not None, not is_number, value if is_number else 0, text)

    texts = sorted(found, key=order)
    return [texts.index(_text(value)) for value in values], texts


def _text(value: Any) -> str:
    return "unset" if value is None else str(value)


def _ticks(texts: Sequence[str]) -> dict[str, Any]:
    step = max(1, len(texts) // _TICKS)
    return {"tickvals": list(range(0, len(texts), step)), "ticktext": list(texts[::step])}


def _slices(found: Outcome) -> go.Figure | None:
    results = _bullets(found)
    varied = varied_settings(results)
    if not varied:
        return None
    columns = min(3, len(varied))
    rows = -(-len(varied) // columns)
    figure = make_subplots(rows, columns, subplot_titles=list(varied), shared_yaxes=True)
    rates = _rates(results)
    colors = {TrialState.COMPLETE: _BEST, TrialState.PRUNED: _OTHER, TrialState.FAILED: _FAILED}
    for index, values in enumerate(varied.values()):
        place = {"row": index // columns + 1, "col": index % columns + 1}
        places, texts = _axis(values)
        figure.add_scatter(
            x=places,
            y=rates,
            mode="markers",
            marker={"color": [colors[r.state] for r in results]},
            text=[_label(r) for r in results],
            hovertemplate="%{y:.1f} rps<br>%{text}<extra></extra>",
            showlegend=False,
            **place,
        )
        figure.update_xaxes(**_ticks(texts), **place)
    return figure.update_layout(height=260 * rows)


def _importance(found: Outcome) -> go.Figure | None:
    if not found.importance:
        return None
    shares = dict(sorted(found.importance.items(), key=lambda item: item[1]))
    figure = go.Figure(go.Bar(x=list(shares.values()), y=list(shares), orientation="h"))
    figure.update_traces(marker_color=_REFERENCE).update_layout(height=140 + 36 * len(shares))
    return figure.update_xaxes(title="share of the rates' variation", tickformat=".0%")


def _seconds(found: Outcome) -> go.Figure | None:
    phases = [phase for phase in PHASES if any(phase in r.timing.phases_s for r in found.results)]
    if not phases:
        return None
    figure = go.Figure()
    for phase in phases:
        figure.add_bar(
            x=[r.number for r in found.results],
            y=[r.timing.phases_s.get(phase, 0.0) for r in found.results],
            name=phase,
        )
    return figure.update_layout(barmode="stack").update_xaxes(title="trial").update_yaxes(title="s")


def _heat_maps(results: Sequence[TrialResult]) -> list[tuple[str, go.Figure]]:
    """Of a sweep: over the two settings that matter most, each load's main figure."""
    settings = varied_settings(results)
    if len(settings) < 2:
        return []
    found = []
    for load in dict.fromkeys(load.load for r in results for load in r.loads):
        told = [
            (index, value, each.kind)
            for index, r in enumerate(results)
            for each in r.loads
            if each.load == load and (value := getattr(each, SHOWN[each.kind])) is not None
        ]
        if not told:
            continue
        column = SHOWN[told[0][2]]
        effects = {
            name: _effect([(str(values[index]), value) for index, value, _ in told])
            for name, values in settings.items()
        }
        names = sorted(
            sorted(effects, key=lambda name: -effects[name])[:2], key=list(effects).index
        )
        xs, across = _axis([settings[names[0]][index] for index, *_ in told])
        ys, up = _axis([settings[names[1]][index] for index, *_ in told])
        cells: dict[tuple[int, int], list[float]] = {}
        for x, y, (_, value, _) in zip(xs, ys, told, strict=True):
            cells.setdefault((x, y), []).append(value)
        figure = go.Figure(
            go.Heatmap(
                x=across,
                y=up,
                z=[
                    [_median(cells.get((x, y))) for x in range(len(across))] for y in range(len(up))
                ],
                colorscale="Viridis",
                reversescale=column.endswith("_s"),
                texttemplate="%{z:.3g}",
                colorbar={"title": column},
            )
        )
        figure.update_xaxes(title=names[0], type="category")
        figure.update_yaxes(title=names[1], type="category")
        rest = [name for name in settings if name not in names]
        over = f", the median over {', '.join(rest)}" if rest else ""
        found.append((f"{load}: {column}{over}", _styled(figure)))
    return found


def _effect(told: Sequence[tuple[str, float]]) -> float:
    """How far apart the medians at a setting's values are, as a ratio."""
    values: dict[str, list[float]] = {}
    for at, value in told:
        values.setdefault(at, []).append(value)
    medians = [median(each) for each in values.values()]
    return max(medians) / (min(medians) or 1e-9)


def _median(values: list[float] | None) -> float | None:
    return median(values) if values else None
