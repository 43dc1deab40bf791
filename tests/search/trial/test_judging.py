"""The result of a trial from its windows."""

from collections import Counter
from dataclasses import replace

import pytest

from loadgen.measurement import Group, Load, Measurement
from loadgen.rate.goal import Depth, Goal
from loadgen.rate.result import Probe, StopReason, SustainedRate
from loadgen.rate.search import RateSearch
from loadgen.rate.verdict import Verdict
from loadgen.schedule import Constant
from search.trial.judging import judge_trial
from search.trial.observation import WindowObservation
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import ServerRecord, TrialResult, TrialState
from serving.configuration.config import ServerConfig
from serving.metrics import ServerWindow
from tests.results import trial_result
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


def result_of(found: SustainedRate, metrics: ServerWindow | None = None) -> TrialResult:
    request = TrialRequest(0, TrialOrigin.SAMPLED, ServerConfig())
    windows = [replace(found.warmup, observation=WindowObservation(metrics))]
    return judge_trial(request, found, windows, ServerRecord(workers_ready=4))


async def test_judge_trial_of_an_estimate_is_complete_without_a_rate() -> None:
    search = RateSearch(Goal(), SimulatedServers(0.01), users=4, depth=Depth.ESTIMATE)
    result = result_of(await search.find())
    assert (result.state, result.sustained_rps) == (TrialState.COMPLETE, None)
    assert result.estimate is not None and result.estimate.rps == pytest.approx(100, rel=0.01)
    assert TrialResult.from_dict(result.to_dict()) == result


async def test_judge_trial_has_a_latency_curve() -> None:
    search = RateSearch(Goal(), SimulatedServers(0.01), users=4, latency_curve=True)
    result = result_of(await search.find())
    assert [point.share for point in result.latency.curve] == [0.5, 0.7, 0.9]
    for point in result.latency.curve:
        assert point.rate_rps == pytest.approx(point.share * (result.sustained_rps or 0))
        assert 0.01 <= (point.p50_s or 0) <= (point.p90_s or 0) <= (point.p99_s or 0)
        assert point.failed == 0
    assert result.latency.p50_s and result.latency.p90_s and result.latency.p99_s


async def test_judge_trial_counts_every_window_at_the_rate() -> None:
    """An undecided window at the rate is evidence of success too; a discarded one is not."""
    search = RateSearch(Goal(), SimulatedServers(0.01), users=4)
    found = await search.find()
    first = found.probes[0]
    others = tuple(
        replace(first, verdict=verdict)
        for verdict in (Verdict.UNDECIDED, Verdict.GENERATOR_LIMITED)
    )
    result = result_of(replace(found, probes=(*found.probes, *others)))
    count = 2 * first.measurement.scheduled
    assert result.rate.requests_without_failure == count
    assert result.rate.success_bound == pytest.approx(0.05 ** (1 / count))


async def test_judge_trial_never_reports_more_busy_workers_than_there_are() -> None:
    search = RateSearch(Goal(), SimulatedServers(0.01), users=4, depth=Depth.ESTIMATE)
    result = result_of(await search.find(), ServerWindow(1.0, 2.0, 8.0, 6.3))
    assert result.server.busy_workers == 4.0


@pytest.mark.parametrize(("lower_rps", "expected"), [(20.0, 2), (None, 4)])
async def test_judge_trial_records_other_loads_of_the_deciding_window(
    lower_rps: float | None, expected: int
) -> None:
    load = Load(Constant(20.0), 1.0)
    windows = []
    for number in (1, 2, 3, 4):
        background = await SimulatedServers(0.01 * number, fail_every=10).measure(load)
        window = await SimulatedServers(0.01).measure(load)
        mix = {"dog": group_of(background), "cat": group_of(window)}
        windows.append(replace(window, background={"zoo": background}, groups=mix))
    best = Probe(20.0, Verdict.PASS, "", windows[1])
    failed = Probe(30.0, Verdict.FAIL, "", windows[3])
    found = SustainedRate(
        lower_rps=lower_rps,
        upper_rps=30.0,
        capacity_rps=20.0,
        probes=(best, failed),
        warmup=windows[0],
        stop_reason=StopReason.CONVERGED,
        reason="the end",
        width=0.05,
        pruned=None,
    )
    result = judge_trial(TrialRequest(0, TrialOrigin.SAMPLED, ServerConfig()), found, windows)
    (record,) = result.background
    assert (record.model, record.rate_rps, record.scheduled, record.failed) == ("zoo", 20, 20, 2)
    assert record.p50_s == pytest.approx(0.01 * expected, rel=0.1)
    cat, dog = result.mix
    assert (cat.model, cat.rate_rps, cat.sent, cat.failed) == ("cat", 20, 20, 0)
    assert (dog.model, dog.rate_rps, dog.sent, dog.failed) == ("dog", 20, 20, 2)
    assert dog.p50_s == pytest.approx(0.01 * expected, rel=0.1)
    assert dog.p99_s == dog.p95_s == dog.p50_s and cat.p99_s == pytest.approx(0.01, rel=0.1)
    read = TrialResult.from_dict(result.to_dict())
    assert (read.background, read.mix) == (result.background, result.mix)


def group_of(window: Measurement) -> Group:
    return Group(window.latency, Counter(window.errors))


def test_judge_trial_reads_a_record_without_a_mix() -> None:
    data = trial_result(0, 100.0).to_dict()
    del data["mix"]
    assert TrialResult.from_dict(data).mix == ()
