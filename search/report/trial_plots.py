"""The plots of one trial, for the service's page. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from statistics import median
from typing import Any

import plotly.graph_objects as go

from search.report.plot_style import styled

_QUANTILES = ("p50", "p90", "p99")
_Window = Mapping[str, Any]


def trial_figures(
    windows: Sequence[_Window], phases_s: Mapping[str, float]
) -> dict[str, go.Figure]:
    """Return each plot that a trial has data for, by name: rates, latencies, phases.

    A rate that was offered in several windows shows their median. The closed loop offers none.

    Args:
        windows: of the trial's measurements, as plain data.
        phases_s: seconds by phase.
    """
    offered = [window for window in windows if window["schedule"].get("rate_rps") is not None]
    drawn = {}
    if offered:
        rates = _by_offered_rate(go.Figure(), offered, "achieved", itemgetter("goodput_rps"))
        rates.update_yaxes(title="achieved rate, requests/s", rangemode="tozero")
        drawn["rates"] = styled(rates, "Achieved against offered rate")
        latencies = go.Figure()
        for name in _QUANTILES:
            if any(window["latency_s"].get(name) is not None for window in offered):
                _by_offered_rate(latencies, offered, name, partial(_quantile, name))
        latencies.update_yaxes(title="latency, s", rangemode="tozero")
        drawn["latencies"] = styled(latencies, "Latency against offered rate")
    if phases_s:
        phases = go.Figure(go.Bar(x=[*phases_s.values()], y=[*phases_s], orientation="h"))
        phases.update_xaxes(title="time, s").update_yaxes(autorange="reversed")
        drawn["phases"] = styled(phases, "Time of each phase")
    return drawn


def _quantile(name: str, window: _Window) -> float | None:
    seconds: float | None = window["latency_s"].get(name)
    return seconds


def _by_offered_rate(
    figure: go.Figure,
    windows: Sequence[_Window],
    name: str,
    value: Callable[[_Window], float | None],
) -> go.Figure:
    values: dict[float, list[float]] = {}
    for window in windows:
        if (found := value(window)) is not None:
            values.setdefault(window["schedule"]["rate_rps"], []).append(found)
    rates = sorted(values)
    figure.add_scatter(
        x=rates, y=[median(values[rate]) for rate in rates], name=name, mode="lines+markers"
    )
    return figure.update_xaxes(title="offered rate, requests/s", rangemode="tozero")
