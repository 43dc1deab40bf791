"""Requests and results as JSON data."""

import json
from dataclasses import replace

from loadgen.rate.estimate import Estimate
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import TrialResult, TrialState
from search.trial.server_probe import ProbeKind, ServerProbe, ServerProbeRecord
from serving.configuration.config import ServerConfig
from serving.metrics import HandlerTime
from tests.results import result_for

CONFIG = ServerConfig(workers=2, environment={"A": "1"})
REQUEST = TrialRequest(3, TrialOrigin.GUIDE, CONFIG, 8.0)


def test_trial_request_reads_its_own_data_and_ignores_other_keys() -> None:
    data = json.loads(json.dumps(REQUEST.to_dict()))
    assert TrialRequest.from_dict({**data, "folder": "x"}) == REQUEST


def test_trial_result_reads_its_own_data_with_more_or_fewer_keys() -> None:
    phases_s = {"start": 5.0, "stop": 2.5}
    result = result_for(REQUEST, 10.0, facts={"cores": 2}, p99_s=0.5, phases_s=phases_s)
    assert TrialResult.from_dict(result.to_dict()) == result
    assert TrialResult.from_dict({**result.to_dict(), "a_later_field": 1}) == result
    without_timing = {key: value for key, value in result.to_dict().items() if key != "timing"}
    assert TrialResult.from_dict(without_timing).timing.phases_s == {}


def test_trial_request_and_result_read_their_probes() -> None:
    probe = ServerProbe(ProbeKind.BATCH, 1, 4)
    request = replace(REQUEST, server_probes=(probe,))
    assert TrialRequest.from_dict(json.loads(json.dumps(request.to_dict()))) == request
    record = ServerProbeRecord(
        *(ProbeKind.BATCH, 1, 4, Estimate(40.0, 38.0, 42.0, 2.0), HandlerTime(4.0, 1.0, 0.1), 2.3)
    )
    failed = ServerProbeRecord(ProbeKind.WORKERS, 1, 8, problem="3 of 90 requests failed")
    result = replace(result_for(REQUEST, 10.0), server_probes=(record, failed))
    assert TrialResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_trial_result_explanations_are_not_stored() -> None:
    request = TrialRequest(0, TrialOrigin.DEFAULT, ServerConfig(workers=9, mkl_threads=1))
    result = result_for(
        request,
        state=TrialState.PRUNED,
        queue_s=0.1,
        inference_s=0.2,
        mean_batch_fill=8.0,
        workers_ready=1,
        batch_capacity=8,
        facts={"cores": 2},
    )
    assert result.explanations == ("batches hold 8.0 of 8 requests on average",)
    assert "explanations" not in result.to_dict()
    assert TrialResult.from_dict(result.to_dict()).explanations == result.explanations
    never_served = result_for(request, state=TrialState.FAILED, facts={"cores": 2})
    assert never_served.explanations == ()


def test_origin_has_its_present_name_in_records_of_earlier_versions() -> None:
    data = result_for(REQUEST, 8.0).to_dict()
    assert data["origin"] == "guide"
    assert TrialResult.from_dict({**data, "origin": "recommended"}).origin is TrialOrigin.GUIDE
