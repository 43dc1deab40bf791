"""The result of a trial from its windows."""

from dataclasses import replace

import pytest

from loadgen.measurement import Load, Measurement
from loadgen.rate.result import Probe, StopReason, SustainedRate
from loadgen.rate.verdict import Verdict
from loadgen.schedule import Constant
from search.trial.judging import judge_trial
from search.trial.observation import WindowObservation
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import TrialState
from serving.config import ServerConfig
from serving.metrics import ServerWindow
from tests.simulated import SimulatedServers


def with_server_metrics(window: Measurement, queue_s: float | None) -> Measurement:
    server = None if queue_s is None else ServerWindow(queue_s, 9.0, None)
    return replace(window, observation=WindowObservation(server))


@pytest.mark.parametrize(
    ("lower_rps", "pruned", "state", "queue_s"),
    [
        pytest.param(
            20.0,
            None,
            TrialState.COMPLETE,
            2.0,
            id="complete: the longest window that passed at the rate",
        ),
        pytest.param(
            None,
            "too slow",
            TrialState.PRUNED,
            4.0,
            id="pruned: the last window with server metrics",
        ),
        pytest.param(
            None, None, TrialState.FAILED, 4.0, id="failed: the last window with server metrics"
        ),
    ],
)
async def test_judge_trial_takes_the_metrics_of_the_deciding_window(
    lower_rps: float | None, pruned: str | None, state: TrialState, queue_s: float
) -> None:
    server = SimulatedServers(0.01)
    loads = ((20.0, 1.0, 1.0), (20.0, 2.0, 2.0), (30.0, 1.0, 4.0), (25.0, 1.0, None))
    windows = [
        with_server_metrics(await server.measure(Load(Constant(rate), span_s)), metric)
        for rate, span_s, metric in loads
    ]
    verdicts = (Verdict.PASS, Verdict.PASS, Verdict.FAIL, Verdict.FAIL)
    found = SustainedRate(
        lower_rps=lower_rps,
        upper_rps=30.0,
        capacity_rps=20.0,
        probes=tuple(
            Probe(rate, verdict, "", window)
            for (rate, _, _), verdict, window in zip(loads, verdicts, windows, strict=True)
        ),
        warmup=windows[0],
        stop_reason=StopReason.CONVERGED,
        reason="the end",
        width=0.05,
        pruned=pruned,
    )
    request = TrialRequest(0, TrialOrigin.SAMPLED, ServerConfig(workers=2, batch_size=8))
    result = judge_trial(request, found, windows)
    assert (result.state, result.server.queue_s) == (state, queue_s)
