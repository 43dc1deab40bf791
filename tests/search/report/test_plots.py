"""The plots of a report."""

from search.report.plots import build_plots
from search.study.outcome import Outcome


def test_build_plots_draws_heat_map_of_sweep(sweep_outcome: Outcome) -> None:
    ((heading, heat_map),) = build_plots(sweep_outcome)
    assert heading == "100 requests at once: completion_s"
    (trace,) = heat_map.data
    assert trace.x == ("8", "16") and trace.y == ("50", "100")
    assert trace.z[0][1] == 2.1, "the median of the best point"


def test_build_plots_draws_each_plot_of_search_that_has_data(outcome: Outcome) -> None:
    assert [heading for heading, _ in build_plots(outcome)] == [
        "The search",
        "All settings together",
        "Each setting",
        "Importance",
        "Seconds by phase",
    ]
