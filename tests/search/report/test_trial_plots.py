"""The plots of one trial."""

from typing import Any

from search.report.trial_plots import trial_figures


def window(rate_rps: float | None, goodput_rps: float, **latency_s: float) -> dict[str, Any]:
    schedule = {} if rate_rps is None else {"rate_rps": rate_rps}
    return {"schedule": schedule, "goodput_rps": goodput_rps, "latency_s": latency_s}


def test_trial_figures_draw_medians_by_offered_rate() -> None:
    windows = [
        window(None, 250.0, p50=1.0),
        window(200.0, 190.0, p50=0.4, p99=0.9),
        window(100.0, 100.0, p50=0.1, p99=0.2),
        window(200.0, 200.0, p50=0.2),
        window(200.0, 198.0, p50=0.3, p99=0.7),
    ]
    drawn = trial_figures(windows, {"start": 5.0, "warm-up": 9.0})
    (rates,) = drawn["rates"].data
    assert (rates.x, rates.y) == ((100.0, 200.0), (100.0, 198.0)), "the closed loop offers no rate"
    latencies = {trace.name: trace.y for trace in drawn["latencies"].data}
    assert latencies == {"p50": (0.1, 0.3), "p99": (0.2, 0.8)}
    (phases,) = drawn["phases"].data
    assert (phases.x, phases.y) == ((5.0, 9.0), ("start", "warm-up"))
    assert drawn["phases"].layout.meta["heading"] == "Time of each phase"


def test_trial_figures_leave_out_what_was_not_measured() -> None:
    assert list(trial_figures([window(None, 250.0)], {"start": 5.0})) == ["phases"]
    assert trial_figures([], {}) == {}
