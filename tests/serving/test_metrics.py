"""TorchServe's counters, and the figures of a window between two samples of them."""

import pytest

from serving.metrics import ServerCounters, ServerWindow


def test_server_counters_since_returns_the_window() -> None:
    before = ServerCounters.parse(
        'ts_queue_latency_microseconds{a="b",} 1.0E6\n'
        'ts_inference_latency_microseconds{a="b",} 3.0E6\n'
        'WorkerThreadTime_count{Level="Host",} 3.0\nQueueTime_count{Level="Host",} 10.0\n'
        'PredictionTime_sum{ModelName="m",} 500.0\n'
    )
    after = ServerCounters(5e6, 15e6, batches=8.0, answered=30.0, handler_ms=2500.0)
    # 20 requests in 5 batches waited 4 s and took 12 s; their handler calls took 2 of 4 s.
    window = after.since(before, 4.0)
    assert window is not None
    assert vars(window) == pytest.approx(vars(ServerWindow(0.2, 0.6, 4.0, 0.5)))
    assert after.since(after, 4.0) is None, "a window without answers has no figures"
