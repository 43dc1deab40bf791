"""The plots that an operator decides by: front, latency curves, predictions. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import plotly.graph_objects as go

from search.answer.operating_points import OperatingPoint, Role
from search.answer.pareto import pareto_front, pareto_points
from search.answer.predicted import predicted_points
from search.errors import RunError
from search.report.plot_style import (
    ACCENT,
    DEFAULT,
    OTHER,
    RECOMMENDED,
    TODAY,
    setting_lines,
    trial_label,
)
from search.study.outcome import Outcome
from search.study.run_folder import Run

#: The roles that a plot names, the most important first: name, colour and symbol.
_ROLES = {
    Role.RECOMMENDED: ("recommended", RECOMMENDED, "star"),
    Role.REFERENCE: ("today", TODAY, "diamond"),
    Role.DEFAULT: ("TorchServe's default", DEFAULT, "square"),
    Role.KNEE: ("knee", ACCENT, "circle"),
    Role.MAX: ("highest rate", OTHER, "triangle-up"),
}
#: Labels that would cover that of a neighbouring point above it.
_LABEL_POSITIONS = {Role.KNEE: "bottom center", Role.DEFAULT: "bottom center"}
#: An axis of rates is logarithmic if the highest is this many times the lowest.
_LOG_FROM = 5.0


def pareto(outcome: Outcome) -> go.Figure | None:
    """Draw p99 at the sustained rate over that rate, for every configuration that has both."""
    measured = [p for p in pareto_points(outcome) if p.p99_s and p.sustained_rps]
    if not measured:
        return None
    # A predicted configuration without a known p99 has no place: the report's table has it.
    points = [*measured, *(p for p in predicted_points(outcome).points if p.p99_s)]
    figure = go.Figure()
    front = pareto_front(measured)
    if len(front) > 1:
        lowest: list[OperatingPoint] = []
        for point in reversed(front):
            if not lowest or (point.p99_s or 0.0) < (lowest[-1].p99_s or 0.0):
                lowest.append(point)
        figure.add_scatter(
            x=[p.sustained_rps for p in lowest],
            y=[p.p99_s for p in lowest],
            mode="lines",
            name="front of rate and latency",
            line={"color": RECOMMENDED, "width": 1, "dash": "dot"},
            hoverinfo="skip",
        )
    named = {role: [p for p in points if _main_role(p) is role] for role in _ROLES}
    others = [p for p in points if _main_role(p) is None]
    for name, group, symbol in (
        ("measured", [p for p in others if p.is_measured], "circle"),
        ("predicted, not measured", [p for p in others if not p.is_measured], "circle-open"),
    ):
        if group:
            _add_points(figure, group, name, OTHER, symbol, size=9)
    for role, group in named.items():
        name, color, symbol = _ROLES[role]
        if group:
            position = _LABEL_POSITIONS.get(role, "top center")
            _add_points(figure, group, name, color, symbol, 15, True, position)
    figure.update_yaxes(title="p99 latency, s", **_latency_axis())
    figure.update_layout(height=440, margin={"t": 40})
    rates = [p.sustained_rps for p in points]
    return figure.update_xaxes(title="sustained rate, requests/s", **_rate_axis(rates))


def latency_curve(outcome: Outcome) -> go.Figure | None:
    """Draw the p50 and p99 latency over the offered rate, recommended and today's."""
    figure = go.Figure()
    rates: list[float] = []
    for point in compared_points(outcome):
        name, color, symbol = _ROLES[_main_role(point) or Role.REFERENCE]
        curve = latency_by_rate(point, outcome.run)
        if not curve:
            continue
        rates += [rate for rate, _, _ in curve]
        for quantile, index, dash in (("p99", 2, "solid"), ("p50", 1, "dot")):
            figure.add_scatter(
                x=[each[0] for each in curve],
                y=[each[index] for each in curve],
                mode="lines+markers",
                name=f"{name}, {quantile}",
                line={"color": color, "dash": dash},
                marker={"symbol": symbol, "size": 9 if quantile == "p99" else 6},
                hovertemplate=f"{name}, {quantile}: %{{y:.3g}} s at %{{x:.3g}} rps<extra></extra>",
            )
    if not rates:
        return None
    figure.update_layout(height=400).update_yaxes(title="latency, s", **_latency_axis())
    return figure.update_xaxes(title="offered rate, requests/s", **_rate_axis(rates))


def predicted(outcome: Outcome) -> go.Figure | None:
    """Draw the rate of each trial over the rate predicted before it, with its 90 % interval."""
    known = [
        (result, result.predicted, result.sustained_rps)
        for result in outcome.results
        if result.predicted and result.predicted.median_rps and result.sustained_rps
    ]
    if not known:
        return None
    medians = [p.median_rps or 0.0 for _, p, _ in known]
    figure = go.Figure()
    bounds = [*medians, *(rate for _, _, rate in known)]
    figure.add_scatter(
        x=[min(bounds), max(bounds)],
        y=[min(bounds), max(bounds)],
        mode="lines",
        name="predicted = measured",
        line={"color": OTHER, "dash": "dot", "width": 1},
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=medians,
        y=[rate for _, _, rate in known],
        mode="markers",
        name="trials, with the 90 % interval of the prediction",
        marker={"color": TODAY, "size": 9},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [(p.high_rps or m) - m for (_, p, _), m in zip(known, medians, strict=True)],
            "arrayminus": [
                m - (p.low_rps or m) for (_, p, _), m in zip(known, medians, strict=True)
            ],
            "color": OTHER,
            "thickness": 1,
        },
        text=[trial_label(result) for result, _, _ in known],
        hovertemplate="%{y:.3g} rps measured, %{x:.3g} predicted<br>%{text}<extra></extra>",
    )
    figure.update_layout(height=400).update_xaxes(
        title="predicted rate, requests/s", **_rate_axis(bounds)
    )
    return figure.update_yaxes(title="measured rate, requests/s", **_rate_axis(bounds))


def compared_points(outcome: Outcome) -> list[OperatingPoint]:
    """Return the recommended configuration and today's; one point if they are the same."""
    wanted = {Role.RECOMMENDED, Role.REFERENCE}
    points = [p for p in pareto_points(outcome) if p.roles & wanted]
    return sorted(points, key=lambda p: Role.RECOMMENDED not in p.roles)


def latency_by_rate(
    point: OperatingPoint, run: Run
) -> list[tuple[float, float | None, float | None]]:
    """Return offered rates, requests/s, with the p50 and p99 latency in seconds, by rate.

    The latencies of its curve; without a curve, the medians of the windows of its trial at rates
    up to the sustained one, if its file can be read.
    """
    if len(point.latency) > 1 or point.number is None:
        return [(each.rate_rps, each.p50_s, each.p99_s) for each in point.latency]
    windows: dict[float, list[tuple[float, float]]] = {}
    for window in _readable_windows(run, point.number):
        rate, latency = window["schedule"].get("rate_rps"), window["latency_s"]
        quantiles = latency.get("p50"), latency.get("p99")
        is_complete = window["scheduled"] == window["succeeded"]
        if rate is not None and None not in quantiles and is_complete:
            windows.setdefault(rate, []).append(quantiles)
    rows = [(rate, *map(median, zip(*windows[rate], strict=True))) for rate in sorted(windows)]
    if rows:
        return [(rate, p50_s, p99_s) for rate, p50_s, p99_s in rows]
    return [(each.rate_rps, each.p50_s, each.p99_s) for each in point.latency]


def _readable_windows(run: Run, number: int) -> list[dict[str, Any]]:
    """Return the windows of a trial; none if their file is damaged: the plot is left out."""
    try:
        return run.windows(number)
    except RunError:
        return []


def _main_role(point: OperatingPoint) -> Role | None:
    roles = point.roles - {Role.REFERENCE} if Role.DEFAULT in point.roles else point.roles
    return next((role for role in _ROLES if role in roles), None)


def _add_points(
    figure: go.Figure,
    points: Sequence[OperatingPoint],
    name: str,
    color: str,
    symbol: str,
    size: int,
    is_named: bool = False,
    label_position: str = "top center",
) -> None:
    """Add points with the interval of their rates; named ones have their trial beside them."""
    highs = [p.rate.high - p.sustained_rps if p.rate else 0.0 for p in points]
    lows = [p.sustained_rps - p.rate.low if p.rate else 0.0 for p in points]
    figure.add_scatter(
        x=[p.sustained_rps for p in points],
        y=[p.p99_s for p in points],
        mode="markers+text" if is_named else "markers",
        name=name,
        marker={"color": color, "symbol": symbol, "size": size},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": highs,
            "arrayminus": lows,
            "color": color,
            "thickness": 1,
        },
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [p.p99.high - p.p99.mean if p.p99 else 0.0 for p in points],
            "arrayminus": [p.p99.mean - p.p99.low if p.p99 else 0.0 for p in points],
            "color": color,
            "thickness": 1,
        },
        text=[p.name for p in points],
        textposition=label_position,
        # A label at the edge of the plot may extend over it.
        cliponaxis=not is_named,
        customdata=[_details(p) for p in points],
        hovertemplate="%{x:.3g} rps, p99 %{y:.3g} s<br>%{customdata}<extra></extra>",
    )


def _details(point: OperatingPoint) -> str:
    roles = [_ROLES[role][0] for role in _ROLES if role in point.roles]
    title = ", ".join([point.name, *roles])
    lines = [title if point.is_measured else f"{title}: predicted, with 90 % intervals"]
    if point.memory_mb is not None:
        lines.append(f"memory: {point.memory_mb:,} MiB")
    if point.gpu_memory_mb is not None:
        lines.append(f"GPU memory: {point.gpu_memory_mb:,} MiB")
    return "<br>".join([*lines, setting_lines(point.config.to_dict())])


def _latency_axis() -> dict[str, object]:
    return {"type": "log", "dtick": "D2", "tickformat": "~g"}


def _rate_axis(rates: Sequence[float]) -> dict[str, object]:
    positive = [rate for rate in rates if rate > 0]
    if positive and max(positive) > _LOG_FROM * min(positive):
        return {"type": "log", "dtick": "D2", "tickformat": "~g"}
    return {"rangemode": "tozero"}
