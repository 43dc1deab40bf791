"""What trials teach the sampler."""

import pytest

from search.sampler.observations import observations_of
from search.spec.space_building import build_space
from search.trial.result import TrialState
from servetune.errors import FailureKind
from serving.configuration.config import ServerConfig
from serving.metrics import HandlerTime
from tests.results import trial_result

SPACE = build_space({}, 4)


def config(workers: int) -> ServerConfig:
    return SPACE.config({**SPACE.nearest_point(), "workers": workers})


def test_observations_of_pruned_trials_change_with_the_ratio_of_complete_ones() -> None:
    pruned = trial_result(1, None, config(2), state=TrialState.PRUNED, capacity_rps=50.0)
    first = trial_result(0, 80.0, config(1), capacity_rps=100.0)
    later = trial_result(2, 60.0, config(3), capacity_rps=100.0)
    assert observations_of([first, pruned], SPACE)[1].rate_rps == pytest.approx(40.0)
    assert observations_of([first, pruned, later], SPACE)[1].rate_rps == pytest.approx(35.0)


def test_observations_of_pruned_trials_are_not_limited_by_the_incumbent() -> None:
    pruned = trial_result(1, None, config(2), state=TrialState.PRUNED, capacity_rps=500.0)
    first = trial_result(0, 100.0, config(1), capacity_rps=100.0)
    observation = observations_of([first, pruned], SPACE)[1]
    assert observation.rate_rps == pytest.approx(500.0) and observation.extra_sd > 0


def test_observations_leave_out_faults_of_the_host_and_keep_lack_of_memory() -> None:
    results = [
        trial_result(0, failure=FailureKind.DISK_FULL, host_fault=True, config=config(1)),
        trial_result(1, failure=FailureKind.OUT_OF_MEMORY, config=config(2)),
    ]
    (observation,) = observations_of(results, SPACE)
    assert observation.too_large and not observation.served


def test_observations_hold_the_telemetry_of_the_server() -> None:
    time = HandlerTime(8.0, 2.0, 0.1)
    result = trial_result(0, 100.0, config(2), handler_times=(time,), peak_memory_mb=900)
    telemetry = observations_of([result], SPACE)[0].telemetry
    assert telemetry.handler_times == (time,)
    assert telemetry.memory_mb == 900


def test_observations_read_the_handler_time_of_records_with_one_window() -> None:
    result = trial_result(
        0, 100.0, config(2), queue_s=0.2, inference_s=0.5, mean_batch_fill=4.0, busy_workers=2.0
    )
    (time,) = observations_of([result], SPACE)[0].telemetry.handler_times
    assert (time.batch_fill, time.busy_workers) == (4.0, 2.0)
    assert time.seconds == pytest.approx(0.3)
