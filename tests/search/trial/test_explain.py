"""The sentences that explain the performance of a configuration."""

import pytest

from search.trial.explain import explain
from serving.configuration.config import ServerConfig
from serving.metrics import ServerWindow

WIDE = ServerConfig(workers=2, batch_size=64, max_batch_delay_ms=10, mkl_threads=1)


@pytest.mark.parametrize(
    ("config", "window", "rate_rps", "sentences"),
    [
        pytest.param(
            WIDE,
            ServerWindow(0.2, 0.5, 62.4, 1.9),
            300.0,
            ["batches hold 62 of 64 requests on average"],
            id="full batches need no explanation",
        ),
        pytest.param(
            WIDE,
            ServerWindow(0.01, 0.2, 3.14, 1.8),
            100.0,
            [
                "batches hold 3.1 of 64 requests on average: at 100 rps, only 1.0 more requests "
                "arrive during the batch delay of 10 ms"
            ],
            id="the delay ends before the batch is full",
        ),
        pytest.param(
            ServerConfig(workers=2, batch_size=64, mkl_threads=1),
            ServerWindow(0.1, 0.5, 20.0, 1.8),
            1000.0,
            ["batches hold 20 of 64 requests on average"],
            id="the default delay of 100 ms is long enough at 1000 rps",
        ),
        pytest.param(
            ServerConfig(workers=4, batch_size=1, mkl_threads=2),
            ServerWindow(0.8, 1.0, 1.0, 3.9),
            4.0,
            [
                "with a batch size of 1, each worker handles one request at a time",
                "4 workers × 2 threads are more than 2 cores can run at once",
                "requests wait 800 ms in the queue and take 200 ms to process: the workers are the "
                "bottleneck",
            ],
            id="too many threads, and a queue for busy workers",
        ),
        pytest.param(
            ServerConfig(),
            ServerWindow(0.0, 0.3, 1.0, 1.9),
            6.0,
            [
                "with a batch size of 1, each worker handles one request at a time",
                "2 workers × 2 threads are more than 2 cores can run at once",
            ],
            id="unset settings count as defaults: one worker and one thread per core",
        ),
        pytest.param(
            ServerConfig(workers=4, batch_size=8, max_batch_delay_ms=50, mkl_threads=2),
            ServerWindow(0.0, 0.02, 8.0, 0.8),
            40.0,
            [
                "batches hold 8.0 of 8 requests on average",
                "3.2 of 4 workers are idle on average at this load",
            ],
            id="threads of idle workers do not count",
        ),
        pytest.param(
            ServerConfig(workers=1, batch_size=1, mkl_threads=1),
            ServerWindow(2.5, 2.6, 1.0, 0.4),
            4.0,
            [
                "with a batch size of 1, each worker handles one request at a time",
                "requests wait 2.5 s in the queue and take 100 ms to process",
                "the worker is idle 60 % of the time at this load",
            ],
            id="a queue is not attributed to an idle worker",
        ),
        pytest.param(
            ServerConfig(workers=1, batch_size=8, max_batch_delay_ms=500, mkl_threads=1),
            ServerWindow(0.45, 0.55, 8.0, None),
            16.0,
            ["batches hold 8.0 of 8 requests on average"],
            id="a wait for the batch delay is no queue; unknown workers are not mentioned",
        ),
        pytest.param(
            ServerConfig(workers=2, batch_size=8, mkl_threads=2),
            None,
            3.0,
            ["2 workers × 2 threads are more than 2 cores can run at once"],
            id="without server metrics, only the configuration is explained",
        ),
        pytest.param(
            ServerConfig(workers=2, batch_size=8, environment={"OMP_NUM_THREADS": "1"}),
            None,
            3.0,
            [],
            id="threads may be set in the environment; no sentence if nothing is known",
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
        "batches hold 8.0 of 8 requests on average",
    )


def test_explain_uses_default_threads_of_torch_under_quota() -> None:
    config = ServerConfig(workers=2, batch_size=1)
    window = ServerWindow(0.0, 0.1, 1.0, 2.0)
    sentences = explain(config, window, cores=2, default_threads=96)
    assert any("96" in sentence for sentence in sentences), sentences
