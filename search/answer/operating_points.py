"""The configurations of a run as an operator compares them: rate, latency, memory. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from search.answer.confirmed import Confirmed
from search.intervals import Interval
from search.study.outcome import Outcome
from search.trial.ranking import newest_by_config, rates_of
from search.trial.request import TrialOrigin
from search.trial.result import LatencyRecord, TrialResult
from serving.configuration.config import ServerConfig


class Role(enum.StrEnum):
    """What a configuration is among those of its run."""

    RECOMMENDED = "recommended"
    REFERENCE = "reference"
    DEFAULT = "default"
    KNEE = "knee"
    MAX = "max"


@dataclass(frozen=True)
class LatencyPoint:
    """Latencies at a share of the sustained rate.

    Attributes:
        share: offered rate ÷ the rate that the same server sustained.
        rate_rps: offered rate, requests/s.
        p50_s, p90_s, p99_s: quantiles from the due time, in seconds; None if unknown.
    """

    share: float
    rate_rps: float
    p50_s: float | None
    p90_s: float | None
    p99_s: float | None


@dataclass(frozen=True)
class OperatingPoint:
    """A configuration with what it gives and what it needs.

    Attributes:
        number: of its trial; None for a predicted configuration without a trial.
        letter: names a predicted configuration without a trial among those of its run.
        config: the configuration.
        sustained_rps: sustained rate, requests/s: the confirmation's, else the search's, else the
            predicted one.
        trials: numbers of all trials of the configuration.
        rate: `sustained_rps` with its interval: 95 % for one more measurement from a confirmation,
            90 % for the true rate from a prediction; None if it is not known.
        latency: measured latencies by share of the sustained rate; empty for a prediction.
        p99_s: p99 latency at the sustained rate, seconds; None if unknown.
        p99, memory: the medians and the 90 % intervals of one more measurement; None unless they
            are predicted.
        memory_mb: peak memory of the server and its workers (PSS), MiB; None if unknown.
        memory_peaks_mb: that peak in each measured server, MiB.
        gpu_memory_mb: peak memory on all GPUs, MiB; None without a GPU.
        workers: number of workers that served.
        is_measured: whether its rate was measured; otherwise rate, p99 and memory are predicted.
        is_confirmed: whether the confirmation measured it.
        roles: what it is among the points of its run.
    """

    number: int | None
    config: ServerConfig
    sustained_rps: float
    trials: tuple[int, ...] = ()
    rate: Interval | None = None
    latency: tuple[LatencyPoint, ...] = ()
    p99_s: float | None = None
    memory_mb: int | None = None
    memory_peaks_mb: tuple[int, ...] = ()
    gpu_memory_mb: int | None = None
    workers: int | None = None
    is_measured: bool = True
    is_confirmed: bool = False
    roles: frozenset[Role] = frozenset()
    p99: Interval | None = None
    memory: Interval | None = None
    letter: str = ""

    @property
    def name(self) -> str:
        """The trial, or that the configuration was not tried."""
        return f"untried {self.letter}".strip() if self.number is None else f"trial {self.number}"

    def with_role(self, role: Role) -> OperatingPoint:
        """Return the same point with one more role."""
        return replace(self, roles=self.roles | {role})

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data; times in seconds, rates in requests/s, memory in MiB."""
        rate = self.rate
        return {
            "name": self.name,
            "trial": self.number,
            "settings": self.config.to_dict(),
            "sustained_rps": self.sustained_rps,
            "low_rps": rate.low if rate else None,
            "high_rps": rate.high if rate else None,
            "p99_s": self.p99_s,
            "p99_low_s": self.p99.low if self.p99 else None,
            "p99_high_s": self.p99.high if self.p99 else None,
            "latency": [vars(point) for point in self.latency],
            "memory_mb": self.memory_mb,
            "memory_low_mb": self.memory.low if self.memory else None,
            "memory_high_mb": self.memory.high if self.memory else None,
            "gpu_memory_mb": self.gpu_memory_mb,
            "workers": self.workers,
            "is_measured": self.is_measured,
            "is_confirmed": self.is_confirmed,
            "roles": sorted(self.roles),
        }


def point_with_role(points: Iterable[OperatingPoint], role: Role) -> OperatingPoint | None:
    """Return the first point with a role; None without one."""
    return next((point for point in points if role in point.roles), None)


def measured_points(outcome: Outcome) -> list[OperatingPoint]:
    """Return a point for each configuration that sustained a rate, by the number of its trial.

    The roles `knee` and `max` are not among theirs; see `pareto.pareto_points`.
    """
    rates = rates_of(outcome.results)
    reference, chosen = outcome.reference, outcome.chosen
    defaults = {r.config.digest for r in outcome.results if r.origin is TrialOrigin.DEFAULT}
    points = []
    for digest, result in newest_by_config(outcome.results).items():
        confirmed = Confirmed.of(outcome.confirmation, result.config)
        point = _measured_point(outcome, result, rates[digest], confirmed)
        roles = {
            Role.RECOMMENDED: chosen is not None and chosen.config == result.config,
            Role.REFERENCE: reference is not None and reference.config == result.config,
            Role.DEFAULT: digest in defaults,
        }
        points.append(replace(point, roles=frozenset(role for role, has in roles.items() if has)))
    return sorted(points, key=lambda point: point.number or 0)


def _measured_point(
    outcome: Outcome, result: TrialResult, search_rps: float, confirmed: Confirmed | None
) -> OperatingPoint:
    verified = confirmed.verified if confirmed else None
    source = verified or result
    rate = confirmed.sustained if confirmed else None
    servers = [r for r in outcome.results if r.config == result.config and not r.host_fault]
    servers += confirmed.servers if confirmed else ()
    peaks = tuple(m for r in servers if (m := r.server.peak_memory_mb))
    sustained_rps = (verified.sustained_rps if verified else None) or search_rps
    return OperatingPoint(
        number=confirmed.number if confirmed else result.number,
        config=result.config,
        sustained_rps=rate.mean if rate else sustained_rps,
        trials=tuple(r.number for r in outcome.results if r.config == result.config),
        rate=rate,
        latency=tuple(latency_points(source)),
        p99_s=source.p99_s,
        memory_mb=max(peaks, default=None),
        memory_peaks_mb=peaks,
        gpu_memory_mb=max((m for r in servers if (m := r.server.peak_gpu_mb)), default=None),
        workers=source.server.workers_ready or result.config.workers,
        is_confirmed=confirmed is not None,
    )


def latency_points(result: TrialResult) -> Iterator[LatencyPoint]:
    """Yield the latencies of a trial by share, the sustained rate last; unknown ones left out."""
    record: LatencyRecord = result.latency
    shares = set()
    for point in sorted(record.curve, key=lambda point: point.share):
        if point.p99_s is not None:
            shares.add(point.share)
            yield LatencyPoint(point.share, point.rate_rps, point.p50_s, point.p90_s, point.p99_s)
    if result.sustained_rps and record.p99_s is not None and 1.0 not in shares:
        yield LatencyPoint(1.0, result.sustained_rps, record.p50_s, record.p90_s, record.p99_s)
