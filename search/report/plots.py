"""The plots of a run, for report.html and for the service's page. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from search.report.answer_plots import latency_curve, pareto, predicted
from search.report.objective_text import optimized
from search.report.plot_style import (
    FAILED,
    OTHER,
    RECOMMENDED,
    SEQUENCE,
    TODAY,
    categories,
    styled,
    ticks,
    trial_label,
)
from search.report.sweep_plots import heat_maps
from search.report.sweep_tables import varied_settings
from search.study.outcome import Outcome
from search.trial.result import PHASES, TrialResult, TrialState

#: Up to this number of trials, each has a tick.
_MAX_TRIAL_TICKS = 12
_STATE_COLORS = {
    TrialState.COMPLETE: RECOMMENDED,
    TrialState.PRUNED: OTHER,
    TrialState.FAILED: FAILED,
}


def figures(outcome: Outcome) -> dict[str, go.Figure]:
    """Return each plot that the run has data for, by name, in the order of the report.

    The names of a search are pareto, latency_curve, predicted, trials, settings, importance and
    seconds. Those of a sweep are "load: NAME" for each load, and seconds. Each figure has its
    heading in `layout.meta.heading`, transparent backgrounds and no colour of the text.
    """
    if outcome.spec.sweep is not None:
        return {**heat_maps(outcome.results), **_drawn(outcome, {"seconds": _SECONDS})}
    return _drawn(outcome, _PLOTS)


def _drawn(
    outcome: Outcome, plots: Mapping[str, tuple[str, Callable[[Outcome], go.Figure | None]]]
) -> dict[str, go.Figure]:
    drawn = {name: (heading, draw(outcome)) for name, (heading, draw) in plots.items()}
    return {
        name: styled(figure, heading)
        for name, (heading, figure) in drawn.items()
        if figure is not None
    }


def _trials(outcome: Outcome) -> go.Figure | None:
    """Draw rates by trial: pruned trials at their estimated capacity, failed ones at 0."""
    if not outcome.results:
        return None
    figure = go.Figure()
    groups: tuple[tuple[str, TrialState, Callable[[TrialResult], float], str], ...] = (
        ("sustained", TrialState.COMPLETE, lambda r: r.sustained_rps or 0.0, "circle"),
        ("pruned (estimated capacity)", TrialState.PRUNED, lambda r: r.capacity_rps or 0.0, "x"),
        ("failed", TrialState.FAILED, lambda r: 0.0, "triangle-down"),
    )
    for name, state, height, symbol in groups:
        results = [r for r in outcome.results if r.state is state]
        if results:
            figure.add_scatter(
                x=[r.number for r in results],
                y=[height(r) for r in results],
                mode="markers",
                name=name,
                marker={"color": _STATE_COLORS[state], "symbol": symbol, "size": 9},
                text=[trial_label(r) for r in results],
                hovertemplate="%{y:.3g} rps<br>%{text}<extra></extra>",
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
        line={"color": RECOMMENDED, "shape": "hv", "width": 1},
        hoverinfo="skip",
    )
    if outcome.reference is not None and outcome.reference.sustained_rps:
        figure.add_hline(
            outcome.reference.sustained_rps,
            line={"dash": "dash", "color": TODAY},
            annotation_text=f"the {outcome.reference.origin}",
        )
    figure.update_layout(height=380).update_xaxes(title="trial", **_trial_ticks(outcome))
    return figure.update_yaxes(title="rate, requests/s", rangemode="tozero")


def _settings(outcome: Outcome) -> go.Figure | None:
    """Draw the rates over the values of each setting."""
    # TorchServe's default sets nothing, and would only add "unset".
    results = [r for r in outcome.results if r.config.to_dict()]
    varied = varied_settings(results)
    if not varied:
        return None
    columns = min(3, len(varied))
    rows = -(-len(varied) // columns)
    figure = make_subplots(
        rows,
        columns,
        subplot_titles=list(varied),
        shared_yaxes=True,
        vertical_spacing=0.3 / rows,
        horizontal_spacing=0.04,
    )
    rates = [
        r.sustained_rps or (r.capacity_rps or 0.0) * (r.state is TrialState.PRUNED) for r in results
    ]
    for index, values in enumerate(varied.values()):
        cell = {"row": index // columns + 1, "col": index % columns + 1}
        positions, labels = categories(values)
        figure.add_scatter(
            x=positions,
            y=rates,
            mode="markers",
            marker={"color": [_STATE_COLORS[r.state] for r in results]},
            text=[trial_label(r) for r in results],
            hovertemplate="%{y:.3g} rps<br>%{text}<extra></extra>",
            showlegend=False,
            **cell,
        )
        figure.update_xaxes(**ticks(labels), **cell)
    figure.update_annotations(font_size=13).update_yaxes(title="requests/s", col=1)
    return figure.update_layout(height=90 + 210 * rows, margin={"t": 40})


def _importance(outcome: Outcome) -> go.Figure | None:
    if not outcome.importance:
        return None
    shares = dict(sorted(outcome.importance.items(), key=lambda item: item[1]))
    figure = go.Figure(go.Bar(x=list(shares.values()), y=list(shares), orientation="h"))
    figure.update_traces(marker_color=TODAY).update_layout(height=110 + 32 * len(shares))
    return figure.update_xaxes(
        title=f"share of the variance of the {optimized(outcome.objective)}", tickformat=".0%"
    )


def _seconds(outcome: Outcome) -> go.Figure | None:
    phases = [phase for phase in PHASES if any(phase in r.timing.phases_s for r in outcome.results)]
    if not phases:
        return None
    figure = go.Figure()
    for phase, color in zip(phases, SEQUENCE, strict=False):
        figure.add_bar(
            x=[r.number for r in outcome.results],
            y=[r.timing.phases_s.get(phase, 0.0) for r in outcome.results],
            name=phase,
            marker_color=color,
        )
    figure.update_layout(barmode="stack", height=360)
    figure.update_xaxes(title="trial", **_trial_ticks(outcome))
    return figure.update_yaxes(title="time, s")


def _trial_ticks(outcome: Outcome) -> dict[str, object]:
    """Return the ticks of an axis of trials, which have no fractions."""
    return {"dtick": 1} if len(outcome.results) <= _MAX_TRIAL_TICKS else {}


_SECONDS = ("Seconds of each trial, by phase", _seconds)
_PLOTS = {
    "pareto": ("Rate against latency", pareto),
    "latency_curve": ("Latency against offered load", latency_curve),
    "predicted": ("Predicted and measured rates", predicted),
    "trials": ("The rate of each trial", _trials),
    "settings": ("The rate over each setting", _settings),
    "importance": ("Importance of each setting", _importance),
    "seconds": _SECONDS,
}
