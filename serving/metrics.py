"""What TorchServe says of its own work, over a window."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SAMPLE = re.compile(r"^(\w+)(?:\{[^}]*\})?\s+([0-9.eE+-]+)$", re.MULTILINE)


@dataclass(frozen=True)
class ServerCounters:
    """Sums since the server's start, from its `/metrics` in Prometheus text.

    batches and answered count the observations of WorkerThreadTime and QueueTime, which
    serving/metrics.yaml makes histograms: one for each batch, one for each request that the
    handler answered. TorchServe counts after it has sent, so that the newest batch may be missing.
    """

    queue_us: float = 0.0
    inference_us: float = 0.0
    batches: float = 0.0
    answered: float = 0.0

    @classmethod
    def parse(cls, text: str) -> ServerCounters:
        """Read the exposition; a counter that is not there yet is 0."""
        sums: dict[str, float] = {}
        for name, value in _SAMPLE.findall(text):
            sums[name] = sums.get(name, 0.0) + float(value)
        return cls(
            sums.get(
                "ts_queue_latency_microseconds", sums.get("ts_queue_latency_microseconds_total", 0)
            ),
            sums.get(
                "ts_inference_latency_microseconds",
                sums.get("ts_inference_latency_microseconds_total", 0),
            ),
            sums.get("WorkerThreadTime_count", 0.0),
            sums.get("QueueTime_count", 0.0),
        )

    def since(self, earlier: ServerCounters, elapsed_s: float) -> ServerWindow | None:
        """What happened between two readings, elapsed_s apart; None where nothing was answered."""
        answered, batches = self.answered - earlier.answered, self.batches - earlier.batches
        if answered <= 0:
            return None
        queue_s = (self.queue_us - earlier.queue_us) / answered / 1e6
        inference_s = (self.inference_us - earlier.inference_us) / answered / 1e6
        return ServerWindow(
            queue_s,
            inference_s,
            answered / batches if batches else None,
            (inference_s - queue_s) * batches / elapsed_s if batches else None,
        )


@dataclass(frozen=True)
class ServerWindow:
    """The server's side of a window.

    Attributes:
        queue_s: mean wait of a request until its batch was complete, seconds.
        inference_s: mean time from a request's arrival to its answer, seconds.
        mean_batch_fill: requests in a batch, on average; None where no batch was counted.
        busy_workers: how many workers had a batch in hand, on average over the window.
    """

    queue_s: float
    inference_s: float
    mean_batch_fill: float | None
    busy_workers: float | None = None
