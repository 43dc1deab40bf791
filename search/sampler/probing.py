"""Which probes a trial makes, what they teach the sampler, and when a kind is distrusted. Pure.

A probe observes a configuration in the server of another one. It informs the sampler only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.sampler.observations import (
    CapacityScale,
    Observation,
    Telemetry,
    capacity_scale,
    observations_of,
)
from search.spec.space import Space
from search.trial.objective import Objective
from search.trial.ranking import RATE
from search.trial.result import TrialResult
from search.trial.server_probe import ProbeKind, ServerProbe, ServerProbeRecord, in_order, log_sd_of
from serving.configuration.config import ServerConfig

#: Maximum number of probes of a trial, beside full batches of one worker if smaller ones need them.
MAX_PROBES = 2
#: A probe is made if the expected improvement of the log rate by its configuration is at least this
#: much, and this share of that by the configuration that is about to be started.
LEAST_GAIN, LEAST_SHARE = 0.01, 0.5
#: Standard deviation of the log capacity between two starts of the same configuration.
START_SD = 0.06
#: A kind is distrusted if its mean difference from fresh servers has this many standard deviations.
DISTRUST_Z = 2.5
#: Two measurements of the same configuration, in a probe and in a fresh server.
Pair = tuple[ServerProbeRecord, TrialResult]


def plan_probes(
    space: Space,
    config: ServerConfig,
    results: Sequence[TrialResult],
    expected_gains: Callable[[Sequence[ServerConfig]], Sequence[float]],
) -> tuple[ServerProbe, ...]:
    """Return the probes of a trial of `config`; none for one worker or several models.

    The first server with several workers shows half of them, and one. Later probes are made only
    if they could matter, because they take seconds that another trial could use.

    Args:
        results: the trials so far.
        expected_gains: returns the expected improvement of the log rate by each configuration.
    """
    values = space.values(config)
    if values is None or space.tuned_models or config.models:
        return ()
    distrusted = set(distrusted_kinds(results, space))
    if ProbeKind.WORKERS in distrusted:
        distrusted.add(ProbeKind.BATCH)  # They are compared with full batches of one worker.
    known = _known_points(results, space)
    candidates = [
        probe
        for probe in _candidates(space, config, values)
        if probe.kind not in distrusted and _key(_point(values, probe)) not in known
    ]
    if not candidates:
        return ()
    if not any(result.server_probes for result in results):
        first = [p for p in candidates if p.kind is ProbeKind.WORKERS]
        return tuple(in_order([*first[:1], *first[-1:]]))
    own, *gains = expected_gains(
        [config, *(space.config(_point(values, probe)) for probe in candidates)]
    )
    least = max(LEAST_GAIN, LEAST_SHARE * own)
    scored = [entry for entry in zip(gains, candidates, strict=True) if entry[0] >= least]
    chosen = [probe for _, probe in sorted(scored, key=lambda entry: -entry[0])[:MAX_PROBES]]
    if any(probe.kind is ProbeKind.BATCH for probe in chosen):
        # Smaller batches are compared with full ones of the same worker.
        full = int(values.get("batch_size", config.batch_size or 1))
        chosen.append(ServerProbe(ProbeKind.WORKERS, 1, full))
    return tuple(in_order(chosen))


def _candidates(space: Space, config: ServerConfig, values: Mapping[str, Any]) -> list[ServerProbe]:
    """Return half of the workers, a quarter … one; then one with a half, a quarter … of a batch."""
    names = {d.name: d for d in space.dimensions}
    workers = space.workers(config)
    batch = int(values.get("batch_size", config.batch_size or 1))
    if "workers" not in names or workers < 2:
        return []
    found = [ServerProbe(ProbeKind.WORKERS, n, batch) for n in _halves(workers)]
    if "batch_size" in names:
        found += [ServerProbe(ProbeKind.BATCH, 1, n) for n in _halves(batch)]
    return [p for p in found if _is_in_space(space, p)]


def _halves(number: int) -> list[int]:
    """Return number ÷ 2, ÷ 4 … 1."""
    halves = []
    while number > 1:
        number //= 2
        halves.append(number)
    return halves


def _is_in_space(space: Space, probe: ServerProbe) -> bool:
    for d in space.dimensions:
        value = {"workers": probe.workers, "batch_size": probe.batch_size}.get(d.name)
        if value is None:
            continue
        if value not in d.choices if d.choices else not d.low <= value <= d.high:
            return False
    return True


def _point(values: Mapping[str, Any], probe: ServerProbe | ServerProbeRecord) -> dict[str, Any]:
    """Return the point of the space that a probe in a server with these values observes."""
    point = {**values, "workers": probe.workers}
    return {**point, "batch_size": probe.batch_size} if "batch_size" in values else point


def _key(point: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(point.items()))


def _known_points(
    results: Sequence[TrialResult], space: Space
) -> Collection[tuple[tuple[str, Any], ...]]:
    """Return the points that were measured or probed."""
    known = set()
    for result in results:
        if (values := space.values(result.config)) is not None:
            known |= {_key(values), *(_key(_point(values, p)) for p in result.server_probes)}
    return known


def known_observations(
    results: Sequence[TrialResult], space: Space, objective: Objective = RATE
) -> list[Observation]:
    """Return what trials and their probes teach about the space."""
    return [*observations_of(results, space, objective), *probe_observations(results, space)]


def probe_observations(results: Sequence[TrialResult], space: Space) -> list[Observation]:
    """Return the probes of the trusted kinds as observations of their configurations."""
    distrusted = distrusted_kinds(results, space)
    scale = capacity_scale(results)
    return [
        _observation(_point(values, record), record, scale)
        for result in results
        if not result.host_fault and (values := space.values(result.config)) is not None
        for record in result.server_probes
        if record.kind not in distrusted and record.has_result
    ]


def _observation(
    point: Mapping[str, Any], record: ServerProbeRecord, scale: CapacityScale
) -> Observation:
    assert record.capacity is not None
    times = (record.handler_time,) if record.handler_time else ()
    return Observation(
        point,
        record.capacity.rps * scale.ratio,
        extra_sd=math.hypot(scale.log_sd, record.log_sd),
        telemetry=Telemetry(handler_times=times),
        is_own=False,
    )


@dataclass(frozen=True)
class Disagreement:
    """A kind of probe that differs from fresh servers.

    Attributes:
        ratio: capacity in a probe ÷ that in a fresh server, geometric mean.
        pairs: number of configurations that were measured in both ways.
        z: the difference of the logarithms ÷ its standard deviation.
    """

    kind: ProbeKind
    ratio: float
    pairs: int
    z: float

    def __str__(self) -> str:
        return (
            f"probes of {self.kind} are no longer used: they showed {self.ratio:.2f} times the "
            f"capacity of fresh servers ({self.pairs} compared)"
        )


def distrusted_kinds(results: Sequence[TrialResult], space: Space) -> dict[ProbeKind, Disagreement]:
    """Return the kinds whose results differ from those of fresh servers by more than the noise."""
    found = {}
    for kind in ProbeKind:
        logs, scores = [], []
        for record, fresh in _pairs(results, space, kind):
            assert record.capacity is not None and fresh.capacity_rps
            difference = math.log(record.capacity.rps / fresh.capacity_rps)
            own_sd = log_sd_of(fresh.estimate) if fresh.estimate else 0.0
            sd = math.hypot(record.log_sd, own_sd, math.sqrt(2) * START_SD)
            logs.append(difference)
            scores.append(difference / sd)
        if logs:
            z = sum(scores) / math.sqrt(len(scores))
            if abs(z) > DISTRUST_Z:
                ratio = math.exp(sum(logs) / len(logs))
                found[kind] = Disagreement(kind, ratio, len(logs), z)
    return found


def _pairs(results: Sequence[TrialResult], space: Space, kind: ProbeKind) -> list[Pair]:
    """Return the probes of a kind, each with the later trials of the same configuration."""
    points = [space.values(result.config) for result in results]
    pairs = []
    for result, values in zip(results, points, strict=True):
        if values is None:
            continue
        for record in result.server_probes:
            if record.kind is not kind or not record.has_result:
                continue
            pairs += [
                (record, fresh)
                for fresh, point in zip(results, points, strict=True)
                if point == _point(values, record)
                and fresh.number > result.number
                and fresh.capacity_rps
                and not fresh.host_fault
            ]
    return pairs
