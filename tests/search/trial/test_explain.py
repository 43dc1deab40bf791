"""Why a configuration is slow or fast: each row carries the sentences that it proves."""

from typing import Any

import pytest

from search.trial.explain import explain
from search.trial.request import TrialOrigin
from search.trial.result import TrialResult, TrialState
from serving.config import ServerConfig
from serving.metrics import ServerCounters, ServerWindow
from tests.results import trial_result

WIDE = ServerConfig(workers=2, batch_size=64, max_batch_delay_ms=10, mkl_threads=1)


@pytest.mark.parametrize(
    ("config", "window", "rate_rps", "sentences"),
    [
        pytest.param(
            WIDE,
            ServerWindow(0.2, 0.5, 62.4, 1.9),
            300.0,
            ["batches hold 62 of 64"],
            id="full batches need no reason",
        ),
        pytest.param(
            WIDE,
            ServerWindow(0.01, 0.2, 3.14, 1.8),
            100.0,
            ["batches hold 3.1 of 64: in the delay of 10 ms only 1.0 more come at 100 rps"],
            id="a delay that is over before the batch is full",
        ),
        pytest.param(
            ServerConfig(workers=2, batch_size=64, mkl_threads=1),
            ServerWindow(0.1, 0.5, 20.0, 1.8),
            1000.0,
            ["batches hold 20 of 64"],
            id="TorchServe's own delay of 100 ms is long enough at 1000 rps: not the reason",
        ),
        pytest.param(
            ServerConfig(workers=4, batch_size=1, mkl_threads=2),
            ServerWindow(0.8, 1.0, 1.0, 3.9),
            4.0,
            [
                "without batches a worker takes one request at a time",
                "4 workers × 2 threads are more than 2 cores can run at once",
                "requests wait 800 ms in the queue for 200 ms of work: the workers are the limit",
            ],
            id="too many threads, and a queue before workers that are all at work",
        ),
        pytest.param(
            ServerConfig(),
            ServerWindow(0.0, 0.3, 1.0, 1.9),
            6.0,
            [
                "without batches a worker takes one request at a time",
                "2 workers × 2 threads are more than 2 cores can run at once",
            ],
            id="what is not set is TorchServe's default: a worker and a thread for each core",
        ),
        pytest.param(
            ServerConfig(workers=4, batch_size=8, max_batch_delay_ms=50, mkl_threads=2),
            ServerWindow(0.0, 0.02, 8.0, 0.8),
            40.0,
            ["batches hold 8.0 of 8", "3.2 of 4 workers are idle"],
            id="idle workers' threads do not count",
        ),
        pytest.param(
            ServerConfig(workers=1, batch_size=1, mkl_threads=1),
            ServerWindow(2.5, 2.6, 1.0, 0.4),
            4.0,
            [
                "without batches a worker takes one request at a time",
                "requests wait 2.5 s in the queue for 100 ms of work",
                "the worker is idle 60% of the time",
            ],
            id="a queue before an idle worker is not laid to the worker",
        ),
        pytest.param(
            ServerConfig(workers=1, batch_size=8, max_batch_delay_ms=500, mkl_threads=1),
            ServerWindow(0.45, 0.55, 8.0, None),
            16.0,
            ["batches hold 8.0 of 8"],
            id="waiting for the batch's delay is no queue; nothing is said of unknown workers",
        ),
        pytest.param(
            ServerConfig(workers=2, batch_size=8, mkl_threads=2),
            None,
            3.0,
            ["2 workers × 2 threads are more than 2 cores can run at once"],
            id="of a server too busy to tell, only what its configuration shows",
        ),
        pytest.param(
            ServerConfig(workers=2, batch_size=8, environment={"OMP_NUM_THREADS": "1"}),
            None,
            3.0,
            [],
            id="threads may be set in the environment; no sentence where nothing is known",
        ),
    ],
)
def test_explain_describes_server_metrics(
    config: ServerConfig, window: ServerWindow | None, rate_rps: float, sentences: list[str]
) -> None:
    assert list(explain(config, window, 2, rate_rps)) == sentences


def test_explain_prefers_reported_settings_to_defaults() -> None:
    window = ServerWindow(0.1, 0.2, 8.0, 1.0)
    assert explain(ServerConfig(mkl_threads=1), window, 2, 80.0, workers=1, batch_size=8) == (
        "batches hold 8.0 of 8",
    )


def test_result_explanations_are_not_stored() -> None:
    given: dict[str, Any] = {"queue_s": 0.1, "inference_s": 0.2, "mean_batch_fill": 8.0}
    config = ServerConfig(workers=9, mkl_threads=1)
    result = trial_result(
        0,
        None,
        config,
        TrialOrigin.DEFAULT,
        state=TrialState.PRUNED,
        **given,
        workers_ready=1,
        batch_capacity=8,
        facts={"cores": 2},
    )
    assert result.explanations == ("batches hold 8.0 of 8",)
    assert "explanations" not in result.to_dict()
    assert TrialResult.from_dict(result.to_dict()).explanations == result.explanations
    dead = trial_result(
        0, None, config, TrialOrigin.DEFAULT, state=TrialState.FAILED, facts={"cores": 2}
    )
    assert dead.explanations == (), "a server that never served has no explanation"


def test_server_counters_since_returns_the_window() -> None:
    before = ServerCounters.parse(
        'ts_queue_latency_microseconds{a="b",} 1.0E6\n'
        'ts_inference_latency_microseconds{a="b",} 3.0E6\n'
        'WorkerThreadTime_count{Level="Host",} 3.0\nQueueTime_count{Level="Host",} 10.0\n'
    )
    after = ServerCounters(5e6, 15e6, batches=8.0, answered=30.0)
    # 20 requests in 5 batches waited 4 s and took 12 s, in total: 0.4 s of work a batch.
    window = after.since(before, 4.0)
    assert window is not None
    assert vars(window) == pytest.approx(vars(ServerWindow(0.2, 0.6, 4.0, 0.5)))
    assert after.since(after, 4.0) is None, "nothing was answered"
