"""What TorchServe says of its own work, over a window."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SAMPLE = re.compile(r"^(\w+)(?:\{[^}]*\})?\s+([0-9.eE+-]+)$", re.MULTILINE)


@dataclass(frozen=True)
class ServerCounters:
    """Sums since the server's start, from its `/metrics` in Prometheus text.

    batches counts WorkerThreadTime observations, which serving/metrics.yaml makes a histogram.
    """

    queue_us: float = 0.0
    inference_us: float = 0.0
    batches: float = 0.0

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
        )

    def since(self, earlier: ServerCounters, succeeded: int) -> ServerWindow:
        """What happened between two readings, in which the client saw `succeeded` answers."""
        answers = max(succeeded, 1)
        batches = self.batches - earlier.batches
        return ServerWindow(
            (self.queue_us - earlier.queue_us) / answers / 1e6,
            (self.inference_us - earlier.inference_us) / answers / 1e6,
            succeeded / batches if batches else None,
        )


@dataclass(frozen=True)
class ServerWindow:
    """The server's side of a window.

    Attributes:
        queue_s: mean wait of a request in the job queue, seconds.
        inference_s: mean time from a request's arrival to its answer, seconds.
        mean_batch_fill: requests in a batch, on average; None where no batch was counted.
    """

    queue_s: float
    inference_s: float
    mean_batch_fill: float | None
