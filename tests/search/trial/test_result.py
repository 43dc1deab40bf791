"""Requests and results as JSON data."""

import json

from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import TrialResult
from serving.config import ServerConfig
from tests.results import result_for

CONFIG = ServerConfig(workers=2, environment={"A": "1"})
REQUEST = TrialRequest(3, TrialOrigin.RECOMMENDED, CONFIG, 8.0)


def test_trial_request_survives_json() -> None:
    data = json.loads(json.dumps(REQUEST.to_dict()))
    assert TrialRequest.from_dict({**data, "folder": "x"}) == REQUEST


def test_trial_result_survives_dict() -> None:
    phases_s = {"start": 5.0, "stop": 2.5}
    written = result_for(REQUEST, 10.0, facts={"cores": 2}, p99_s=0.5, phases_s=phases_s)
    assert TrialResult.from_dict(written.to_dict()) == written
    assert TrialResult.from_dict({**written.to_dict(), "a_later_field": 1}) == written
    older = {key: value for key, value in written.to_dict().items() if key != "timing"}
    assert TrialResult.from_dict(older).timing.phases_s == {}
