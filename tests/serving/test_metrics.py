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


def test_server_counters_of_one_of_several_models_use_the_count_of_the_client() -> None:
    text = (
        'ts_queue_latency_microseconds{uuid="u",model_name="cat",model_version="default",} 4.0E6\n'
        'ts_queue_latency_microseconds{uuid="u",model_name="dog",model_version="default",} 9.0E6\n'
        'ts_inference_latency_microseconds{model_name="cat",} 8.0E6\n'
        'ts_inference_latency_microseconds{model_name="dog",} 90.0E6\n'
        'WorkerThreadTime_count{Level="Host",} 50.0\nQueueTime_count{Level="Host",} 400.0\n'
    )
    counters = ServerCounters.parse(text, ["cat"])
    assert (counters.queue_us, counters.inference_us) == (4e6, 8e6)
    window = counters.since(ServerCounters(), 4.0, answered_by_client=20)
    assert window == ServerWindow(0.2, 0.4, None, None)
    assert ServerCounters.parse(text).queue_us == 13e6
    assert ServerCounters.parse(text, ["cat", "dog"]).queue_us == 13e6
