"""The plots of a report."""

from dataclasses import replace

import pytest

from search.answer.predicted import predicted_points
from search.report.plots import figures
from search.study.outcome import Outcome
from search.trial.prediction import PredictedRate
from tests.search.answer.points import with_trials


def test_figures_draws_heat_map_of_sweep(sweep_outcome: Outcome) -> None:
    drawn = figures(sweep_outcome)
    (heat_map,) = [figure for name, figure in drawn.items() if name.startswith("load: ")]
    assert heat_map.layout.meta["heading"] == "100 requests at once: completion_s"
    (trace,) = heat_map.data
    assert trace.x == ("8", "16") and trace.y == ("50", "100")
    assert trace.z[0][1] == 2.1, "the median of the best point"


def test_figures_draws_each_plot_of_search_that_has_data(outcome: Outcome) -> None:
    drawn = figures(outcome)
    assert list(drawn) == [
        *("pareto", "latency_curve", "predicted", "trials", "settings", "seconds"),
    ], "three measured trials do not show an importance"
    assert all(figure.layout.meta["heading"] for figure in drawn.values())


def test_figures_have_neither_background_nor_color_of_text(outcome: Outcome) -> None:
    for figure in figures(outcome).values():
        assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"
        assert (
            figure.layout.font.color is None and not figure.layout.template.layout.to_plotly_json()
        )


def test_figures_name_todays_and_the_recommended_configuration(confirmed: Outcome) -> None:
    traces = {trace.name: trace for trace in figures(confirmed)["pareto"].data}
    assert traces["recommended"].text == ("trial 3",) and traces["TorchServe's default"].x == (5.0,)
    (rate,) = traces["recommended"].x
    error = traces["recommended"].error_x
    assert rate == pytest.approx(233, abs=1) and error.array[0] > 0 and error.arrayminus[0] > 0
    assert traces["measured"].x == (60.0,)


def test_figures_draw_predicted_configurations_open_and_with_intervals(outcome: Outcome) -> None:
    drawn = figures(given := with_trials(outcome, 8))["pareto"]
    (trace,) = [t for t in drawn.data if t.name == "predicted, not measured"]
    known = [p for p in predicted_points(given).points if p.p99_s]
    assert trace.marker.symbol == "circle-open" and len(trace.x) == len(known) > 0
    assert all(each > 0 for each in (*trace.error_x.array, *trace.error_y.array))
    assert all("predicted" in text for text in trace.customdata)


def test_figures_draw_latency_of_both_configurations(confirmed: Outcome) -> None:
    names = [trace.name for trace in figures(confirmed)["latency_curve"].data]
    assert names == [
        "recommended, p99",
        "recommended, p50",
        "TorchServe's default, p99",
        "TorchServe's default, p50",
    ]


def test_figures_draw_predictions_with_their_interval(outcome: Outcome) -> None:
    predicted = PredictedRate(200.0, 150.0, 320.0, 1.0)
    results = [replace(r, predicted=predicted) for r in outcome.results]
    *_, trace = figures(replace(outcome, results=results))["predicted"].data
    assert trace.x == (200.0,) * 3, "pruned and failed trials have no measured rate"
    assert trace.y == (5.0, 60.0, 250.0)
    assert trace.error_x.array[0] == 120 and trace.error_x.arrayminus[0] == 50


def test_figures_of_a_run_without_a_rate_lack_what_is_unknown(outcome: Outcome) -> None:
    none = replace(outcome, results=outcome.results[2:3], best=None, reference=None)
    assert "pareto" not in figures(none) and "latency_curve" not in figures(none)
