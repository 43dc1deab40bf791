"""What the sampler learns from a trial, as plain numbers. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import pstdev
from typing import Any

from search.spec.space import Space
from search.trial.objective import Figures, Objective
from search.trial.ranking import RATE, capacity_ratio, capacity_ratios, sampler_value
from search.trial.result import TrialResult, TrialState
from servetune.errors import is_memory
from serving.metrics import HandlerTime

#: Standard deviation of log(sustained rate ÷ capacity) if fewer than three trials are complete.
_UNKNOWN_RATIO_SD = 0.1

Point = Mapping[str, Any]


@dataclass(frozen=True)
class Telemetry:
    """What the server reported about itself in a trial; every figure may be missing.

    Attributes:
        handler_times: by batch fill and number of busy workers. If some workers are idle while
            requests wait, the front end or the delay limits the rate.
        memory_mb: peak memory of the server and its workers, MiB.
    """

    handler_times: tuple[HandlerTime, ...] = ()
    memory_mb: float | None = None


@dataclass(frozen=True)
class Observation:
    """A configuration and its measured rate.

    Attributes:
        point: the configuration's value in each dimension of the space.
        rate_rps: requests/s; 0 for a failure.
        extra_sd: standard deviation of the log rate in addition to the noise of a full measurement.
        violated: whether it violated a constraint, and may have failed because of it.
        too_large: whether it failed for lack of memory.
        telemetry: what the server reported about itself.
        is_own: whether it is a trial of this run, neither a probe nor a trial of an earlier run.
        is_met: whether it met the limits of the objective.
        score: what the objective maximizes; None if that is the rate, or unknown.
        latency_share: latency at `goal.for_rps` ÷ its limit; None without one.
    """

    point: Point
    rate_rps: float
    extra_sd: float = 0.0
    violated: bool = False
    too_large: bool = False
    telemetry: Telemetry = Telemetry()
    is_own: bool = True
    is_met: bool = True
    score: float | None = None
    latency_share: float | None = None

    @property
    def served(self) -> bool:
        """Whether the configuration has a finite rate above 0."""
        return math.isfinite(self.rate_rps) and self.rate_rps > 0


@dataclass(frozen=True)
class CapacityScale:
    """How sustained rates follow from capacities.

    Attributes:
        ratio: median of sustained rate ÷ capacity in the complete trials.
        log_sd: standard deviation of its logarithm.
    """

    ratio: float
    log_sd: float


def capacity_scale(results: Sequence[TrialResult]) -> CapacityScale:
    """Return the ratio of sustained rates to capacities in these trials."""
    ratios = capacity_ratios(results)
    logs = [math.log(ratio) for ratio in ratios]
    log_sd = pstdev(logs) if len(logs) > 2 else _UNKNOWN_RATIO_SD
    return CapacityScale(capacity_ratio(ratios), log_sd)


def observations_of(
    results: Sequence[TrialResult], space: Space, objective: Objective = RATE
) -> list[Observation]:
    """Return what trials teach about the space; failures of a host teach nothing.

    A trial without a sustained rate counts with its capacity × the median ratio of the complete
    trials, which changes with each of them.
    """
    scale = capacity_scale(results)
    observations = []
    for result in results:
        if result.host_fault or (point := space.values(result.config)) is None:
            continue
        is_estimate = result.state is not TrialState.COMPLETE
        figures, target = Figures.of([result]), result.latency.target
        is_measured = target is not None and objective.limits_latency
        observations.append(
            Observation(
                point,
                sampler_value(result, scale.ratio),
                extra_sd=scale.log_sd if is_estimate else 0.0,
                # A latency at `goal.for_rps` does not keep a configuration from serving.
                violated=result.latency.limit_excess > 0 and objective.required_rps is None,
                too_large=is_memory(result.failure),
                telemetry=telemetry_of(result),
                is_met=not objective.shortfalls(figures),
                score=None if objective.maximizes_rate else objective.score(figures) or None,
                latency_share=1 + result.latency.limit_excess if is_measured else None,
            )
        )
    return observations


def telemetry_of(result: TrialResult) -> Telemetry:
    """Return what a trial's server reported about itself."""
    server, window = result.server, result.server.window
    times = server.handler_times
    if not times and window is not None and (time := window.handler_time) is not None:
        times = (time,)  # An older record has one window only.
    return Telemetry(times, server.peak_memory_mb)
