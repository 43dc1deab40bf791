"""The view of a running study."""

import io
from dataclasses import replace

from rich.console import Console

from loadgen.rate.goal import Depth
from search.cli.live import LiveView
from search.study.progress import Progress
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import TrialState
from serving.configuration.config import ServerConfig
from tests.results import result_for


def test_live_view_prints_lines_without_terminal() -> None:
    out = io.StringIO()
    with LiveView(Console(file=out, width=60), 3, 60.0, plain=True) as view:
        for number, (origin, rps) in enumerate(
            [(TrialOrigin.DEFAULT, 5.0), (TrialOrigin.GUIDE, 60.0)]
        ):
            request = TrialRequest(number, origin, ServerConfig(workers=number + 1))
            view.started(request)
            view.phase(number, "bracketing", 10.0)
            result = result_for(request, rps, state=TrialState.COMPLETE, p99_s=0.5)
            view.finished(result, result)
    lines = out.getvalue().splitlines()
    assert lines[0] == "trial 0 (default): workers=1"
    assert "best 60.0 rps (trial 1), 12.0 × the default's 5.0" in lines[3]
    assert len(lines) == 4


def test_live_view_shows_trial_phase_rate_best_and_time_left() -> None:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True)
    with LiveView(console, 3, 600.0, plain=False, rounds=5) as view:
        view.started(TrialRequest(1, TrialOrigin.SAMPLED, ServerConfig()))
        view.phase(1, "bracketing", 42.0)
        console.print(view._render())
        visit = TrialRequest(1, TrialOrigin.CONFIRMATION, ServerConfig(), depth=Depth.ESTIMATE)
        view.confirming(1, visit)
        console.print(view._render())
        view.stopping()
        console.print(view._render())
    text = out.getvalue()
    for part in (
        "trial 1, sampled (at most 3 trials)",
        "bracketing at 42.0 rps",
        "best",
        "up to about 10 min left",
        "trial 1, confirmation, round 2 of 5: start",
        "round 2 of 5: stopping",
    ):
        assert part in text


def test_live_view_says_what_is_tried_and_what_is_known() -> None:
    progress = Progress(
        "trying larger batches (32 → 64)", "150 rps, 40 times the default", 90.0, 0.4
    )
    out = io.StringIO()
    with LiveView(Console(file=out, width=60), 3, 60.0, plain=True) as view:
        view.progress(progress)
        view.progress(replace(progress, left_s=240.0, improvement_probability=None))
    assert out.getvalue().splitlines() == [
        "trying larger batches (32 → 64); so far: 150 rps, 40 times the default; "
        "probability of a better configuration: 40 %; about 90 s left",
        "about 4 min left",
    ]
    console = Console(file=out, width=100, force_terminal=True)
    with LiveView(console, 3, 60.0, plain=False) as view:
        view.progress(progress)
        console.print(view._render())
    for part in ("trying larger batches", "40 % of a better configuration", "about 90 s left"):
        assert part in out.getvalue().split("4 min left")[1]


def test_live_view_shows_the_estimate_of_a_visit() -> None:
    output = io.StringIO()
    request = TrialRequest(
        3, TrialOrigin.CONFIRMATION, ServerConfig(workers=2), depth=Depth.ESTIMATE
    )
    visit = result_for(request, None, state=TrialState.COMPLETE, capacity_rps=97.5, duration_s=12.0)
    with LiveView(Console(file=output), 3, 60.0, plain=True) as view:
        view.confirming(0, request)
        view.confirmed(0, visit)
        view.confirming(1, replace(request, depth=Depth.FULL))
        view.confirmed(1, replace(visit, state=TrialState.COMPLETE))
    assert "round 1, trial 3: capacity of about 97.5 rps (12 s)" in output.getvalue()
    assert "verification, trial 3: " in output.getvalue()
