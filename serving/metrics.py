"""TorchServe's counters and their change over a window."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass

_SAMPLE = re.compile(r"^(\w+)(?:\{([^}]*)\})?\s+([0-9.eE+-]+)$", re.MULTILINE)
_MODEL = re.compile(r'\bmodel_name="([^"]*)"')


@dataclass(frozen=True)
class ServerCounters:
    """Sums since the server's start, from its `/metrics`.

    serving/metrics.yaml declares WorkerThreadTime, QueueTime and PredictionTime as histograms:
    their `_count` is the number of batches, answered requests and handled batches, and the `_sum`
    of PredictionTime is the time of all handler calls. TorchServe counts a batch after it has
    sent the answers, so the newest batch may be missing.

    Attributes:
        queue_us: waiting time of all requests until their batch was complete, microseconds.
        inference_us: time from arrival to answer of all requests, microseconds.
        batches: number of batches that the workers processed; the load of the model is one more
            for each worker.
        answered: number of requests that the handler answered.
        handler_ms: time of all calls of the handler, milliseconds.
    """

    queue_us: float = 0.0
    inference_us: float = 0.0
    batches: float = 0.0
    answered: float = 0.0
    handler_ms: float = 0.0

    @classmethod
    def parse(cls, text: str, models: Collection[str] = ()) -> ServerCounters:
        """Read Prometheus text; a missing counter is 0.

        Args:
            models: whose latencies count; all if empty. Batches are counted for all models.
        """
        sums: dict[str, float] = {}
        for name, labels, value in _SAMPLE.findall(text):
            model = _MODEL.search(labels)
            if not models or model is None or model[1] in models:
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
            sums.get("PredictionTime_sum", 0.0),
        )

    def since(
        self, earlier: ServerCounters, elapsed_s: float, answered_by_client: int | None = None
    ) -> ServerWindow | None:
        """Return the averages since an earlier reading; None if no request was answered.

        Args:
            elapsed_s: time between the two readings, seconds.
            answered_by_client: number of requests that the counted models answered, if other
                models answered requests too. TorchServe does not count batches by model.
        """
        answered, batches = self.answered - earlier.answered, self.batches - earlier.batches
        if answered_by_client is not None:
            answered, batches = answered_by_client, 0.0
        if answered <= 0:
            return None
        handler_ms = self.handler_ms - earlier.handler_ms
        queue_s = (self.queue_us - earlier.queue_us) / answered / 1e6
        inference_s = (self.inference_us - earlier.inference_us) / answered / 1e6
        return ServerWindow(
            queue_s,
            inference_s,
            answered / batches if batches else None,
            handler_ms / 1000 / elapsed_s if handler_ms > 0 else None,
        )


@dataclass(frozen=True)
class ServerWindow:
    """A window as the server measured it.

    Attributes:
        queue_s: mean waiting time of a request until its batch was complete, seconds.
        inference_s: mean time from a request's arrival to its answer, seconds.
        mean_batch_fill: mean number of requests in a batch; None if no batch was counted.
        busy_workers: mean number of workers whose handler was running; None if TorchServe
            reported no handler call.
    """

    queue_s: float
    inference_s: float
    mean_batch_fill: float | None
    busy_workers: float | None = None

    @property
    def handler_time(self) -> HandlerTime | None:
        """The mean duration of a batch; None if no batch was counted."""
        if not self.mean_batch_fill or not self.busy_workers:
            return None
        # A batch is counted after its answers, so that a short window may count too few.
        busy_workers = max(self.busy_workers, 1.0)
        time = HandlerTime(self.mean_batch_fill, busy_workers, self.inference_s - self.queue_s)
        return time if time.is_valid else None


@dataclass(frozen=True)
class HandlerTime:
    """The mean duration of a batch in a worker.

    Attributes:
        batch_fill: mean number of requests in a batch.
        busy_workers: mean number of workers that processed a batch at the same time.
        seconds: duration of a batch.
    """

    batch_fill: float
    busy_workers: float
    seconds: float

    @property
    def is_valid(self) -> bool:
        """Whether all figures are finite and positive."""
        figures = (self.batch_fill, self.busy_workers, self.seconds)
        return all(math.isfinite(figure) and figure > 0 for figure in figures)
