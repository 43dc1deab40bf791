"""Make the probes of a trial in its running server; see `server_probe`."""

from __future__ import annotations

import time
from collections.abc import Sequence

from loadgen.measurement import LoadGenerator
from loadgen.rate.estimate import Estimate
from loadgen.rate.goal import Goal
from loadgen.rate.result import SustainedRate
from loadgen.rate.short_loop import MAX_SHORT_S, SHORT_S, measure_short_loop, short_loop_s
from search.trial.observation import ObservedGenerator, Turn, observation_of
from search.trial.server_probe import (
    ProbeKind,
    ServerProbe,
    ServerProbeRecord,
    batch_capacity_rps,
    in_order,
)
from search.trial.users import closed_loop_users
from serving.configuration.defaults import DEFAULT_JOB_QUEUE_SIZE
from serving.metrics import HandlerTime
from serving.server import TorchServe

#: Batches of n users hold n requests on average, up to this share.
_FILL_TOLERANCE = 0.15
_DEFAULT_DELAY_MS = 100


def may_probe(server: TorchServe, found: SustainedRate) -> bool:
    """Return whether a server can be probed: one model, several workers, and it served."""
    return len(server.models) == 1 and len(server.worker_pids) > 1 and found.capacity_rps > 0


def probes_s(probes: Sequence[ServerProbe]) -> float:
    """Return the expected duration of probes of a fast model, seconds."""
    return SHORT_S * len(probes)


class ServerProber:
    """Scales a server down, and runs short closed loops.

    Args:
        server: serves one model; the trial's own windows have ended.
        turn: held while a loop runs.
        capacity_rps: that the trial's closed loop found.
    """

    def __init__(
        self,
        server: TorchServe,
        generator: LoadGenerator,
        turn: Turn,
        goal: Goal,
        capacity_rps: float,
    ):
        self._server, self._goal = server, goal
        # The windows of the trial, and those that a person sees, are none of these.
        self._observed = ObservedGenerator(server, generator, turn, lambda progress: None)
        self._cycle_s = server.batch_capacity / capacity_rps
        self._full: ServerProbeRecord | None = None

    async def run(self, probes: Sequence[ServerProbe]) -> tuple[ServerProbeRecord, ...]:
        """Make the probes one after another; stop after one that fails.

        Nothing is raised: the trial has its result.
        """
        records = []
        for probe in in_order(probes):
            started_s = time.monotonic()
            capacity, handler_time, problem = None, None, self._obstacle(probe)
            has_failed = False
            if not problem:
                try:
                    capacity, handler_time, problem = await self._measure(probe)
                except Exception as error:
                    problem, has_failed = f"{type(error).__name__}: {error}", True
            record = ServerProbeRecord(
                probe.kind,
                probe.workers,
                probe.batch_size,
                capacity,
                handler_time,
                round(time.monotonic() - started_s, 2),
                problem,
            )
            records.append(record)
            if probe.kind is ProbeKind.WORKERS and probe.workers == 1 and capacity and handler_time:
                self._full = record
            if has_failed:
                break
        return tuple(records)

    def _obstacle(self, probe: ServerProbe) -> str:
        """Return why a probe is not made; empty if it is."""
        cycle_s = self._cycle_s
        if probe.kind is ProbeKind.BATCH:
            if self._full is None:
                return "one worker with full batches was not measured before"
            delay_ms = self._server.config.max_batch_delay_ms
            cycle_s += (_DEFAULT_DELAY_MS if delay_ms is None else delay_ms) / 1000
        expected_s = short_loop_s(cycle_s)
        if expected_s > MAX_SHORT_S:
            return f"its batches take too long: the probe would take about {expected_s:.0f} s"
        return ""

    async def _measure(self, probe: ServerProbe) -> tuple[Estimate | None, HandlerTime | None, str]:
        server, is_batch = self._server, probe.kind is ProbeKind.BATCH
        if len(server.worker_pids) > probe.workers:
            await server.scale_down(probe.workers)
        requests = probe.batch_size if is_batch else server.batch_capacity
        queue = server.config.job_queue_size or DEFAULT_JOB_QUEUE_SIZE
        users = requests if is_batch else closed_loop_users([requests], queue)
        window, estimate = await measure_short_loop(self._observed, self._goal, requests, users)
        observation = observation_of(window)
        counters = observation.server if observation else None
        handler_time = counters.handler_time if counters else None
        if window.failed:
            return None, None, f"{window.failed} of {window.sent} requests failed"
        if estimate is None:
            return None, handler_time, "too few requests were answered"
        if is_batch:
            return self._of_batch(probe, estimate, handler_time)
        return estimate, handler_time, ""

    def _of_batch(
        self, probe: ServerProbe, estimate: Estimate, handler_time: HandlerTime | None
    ) -> tuple[Estimate | None, HandlerTime | None, str]:
        """Return the capacity of one worker with this batch size."""
        full = self._full
        assert full is not None and full.capacity is not None and full.handler_time is not None
        if handler_time is None:
            return None, None, "the server did not report how long its batches took"
        fill = handler_time.batch_fill
        if abs(fill - probe.batch_size) > _FILL_TOLERANCE * probe.batch_size:
            problem = f"its batches had {fill:.1f} requests instead of {probe.batch_size}"
            return None, handler_time, problem
        full_time = full.handler_time
        rate_rps = batch_capacity_rps(
            probe.batch_size,
            handler_time.seconds,
            full_time.batch_fill,
            full_time.seconds,
            full.capacity.rps,
        )
        # The loop is as noisy as its throughput, and so is the one that it is compared with.
        error = (estimate.relative_error**2 + full.capacity.relative_error**2) ** 0.5
        low_rps, high_rps = max(rate_rps * (1 - error), 0.0), rate_rps * (1 + error)
        return Estimate(rate_rps, low_rps, high_rps, estimate.seconds), handler_time, ""
