"""What limits the rate of a trial."""

from typing import Any

import pytest

from search.trial.bottleneck import Limit, bottleneck_of
from search.trial.result import TrialResult, TrialState
from servetune.errors import FailureKind
from serving.configuration.config import ServerConfig
from serving.metrics import HandlerTime
from tests.results import trial_result


def loaded(config: ServerConfig, *times: HandlerTime, **figures: Any) -> TrialResult:
    workers, batch_size = config.workers or 2, config.batch_size or 1
    figures = {
        **{"workers_ready": workers, "batch_capacity": workers * batch_size},
        **{"queue_s": 0.1, "inference_s": 0.4, "facts": {"cores": 2, "memory_mb": 4000}},
        **figures,
    }
    return trial_result(1, 100.0, config, handler_times=times, **figures)


BATCHES = ServerConfig(workers=2, batch_size=64, max_batch_delay_ms=50)
FULL = HandlerTime(63.0, 1.95, 1.2)


@pytest.mark.parametrize(
    ("result", "limit"),
    [
        (loaded(BATCHES, FULL), Limit.HANDLER),
        (loaded(BATCHES, HandlerTime(20.0, 0.6, 0.1)), Limit.BATCH_DELAY),
        (loaded(ServerConfig(workers=2), HandlerTime(1.0, 2.0, 0.1)), Limit.SINGLE_REQUESTS),
        (
            loaded(ServerConfig(workers=2), HandlerTime(1, 2, 0.6), HandlerTime(1, 1, 0.1)),
            Limit.CONTENTION,
        ),
        (loaded(BATCHES, FULL, other_cpu=0.6), Limit.OTHER_PROCESSES),
        (
            loaded(ServerConfig(workers=4), HandlerTime(1, 1, 0.1), p50_s=1.0),
            Limit.FRONT_END,
        ),
        (loaded(BATCHES), Limit.UNKNOWN),
    ],
)
def test_bottleneck_of_names_the_limit(result: TrialResult, limit: Limit) -> None:
    assert bottleneck_of(result).limit is limit


def test_bottleneck_of_shows_the_evidence() -> None:
    evidence = bottleneck_of(loaded(BATCHES, FULL, peak_memory_mb=3600)).evidence
    assert evidence == (
        "handler: 1.2 s for a batch of 63, 19 ms for each request",
        "workers: 1.9 of 2 busy when the server is saturated",
        "batches: 63 of 64 requests when the server is saturated",
        "queue: 100 ms of the 400 ms that a request spends in the server at the sustained rate",
        "memory: 3,600 MiB at its peak in this server, 90 % of the host's",
    )


def test_bottleneck_of_estimates_the_gain_of_larger_batches() -> None:
    # A batch takes 0.3 s and 0.01 s for each request.
    times = [HandlerTime(fill, 2.0, 0.3 + 0.01 * fill) for fill in (10.0, 30.0, 60.0)]
    remedies = bottleneck_of(loaded(BATCHES, *times)).remedies
    assert "larger batches (now 64) would gain at most 33 %" in remedies[0]


def test_bottleneck_of_failed_trial_names_memory() -> None:
    failed = trial_result(
        2, None, state=TrialState.FAILED, failure=FailureKind.OUT_OF_MEMORY, cause="9 GB\nlog"
    )
    found = bottleneck_of(failed)
    assert found.limit is Limit.FAILED and found.sentence == "it ran out of memory: 9 GB"
    assert found.remedies == ("fewer workers or smaller batches, or more memory",)
