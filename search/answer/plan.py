"""How many replicas a load needs, and what they give and cost. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from search.answer.latency_curve import LatencyCurve, Quantile
from search.answer.operating_points import OperatingPoint
from search.answer.scaling import Scaling
from search.errors import RunError
from search.headroom import DEFAULT_HEADROOM, MAX_HEADROOM
from search.intervals import Interval, prediction_interval
from servetune.errors import InputError

_HOUR_S = 3600


@dataclass(frozen=True)
class Quantity:
    """A planned value with the interval that the confirmation gives it.

    Attributes:
        value: what to plan with.
        low, high: bounds of the 95 % interval; None if they are not known.
    """

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, value: float, bounds: Iterable[float] | None) -> Quantity:
        """Return a value with the least and the greatest of these bounds."""
        known = sorted(bounds or ())
        return cls(value, known[0], known[-1]) if known else cls(value)


@dataclass(frozen=True)
class ReplicaLoad:
    """The load of each replica.

    Attributes:
        replicas: number of replicas that share the load.
        rps: requests/s of each.
        share: `rps` ÷ the expected sustained rate.
        p50_s, p90_s, p99_s: expected latencies, in seconds; None if the load exceeds the highest
            one that was measured.
        is_sustained: whether each sustains its load, with the rate that the plan counts with.
    """

    replicas: int
    rps: float
    share: float
    p50_s: Quantity | None
    p90_s: Quantity | None
    p99_s: Quantity | None
    is_sustained: bool


@dataclass(frozen=True)
class CapacityPlan:
    """Replicas of one configuration for a load.

    Attributes:
        point: the configuration.
        rate_rps: the load of all replicas, requests/s.
        p99_limit_s: limit on the p99 latency, seconds; None without one.
        headroom: share of a replica's rate that is kept free.
        replica_rps: what a replica sustains, within the limit; the plan counts with the lower end
            of the confirmation's interval.
        replicas: number of replicas. With every replica at the upper end of the interval `low` of
            them would do, at the lower end it takes `high`.
        load: the load of each replica.
        one_down: the load of each replica while one is down; None if there is only one.
        memory_mb: peak memory of a replica, MiB; None if unknown.
        total_memory_mb: that of all replicas.
        price_per_hour: of a replica, in any currency; None if it is not given.
        cost_per_million: of a million requests at this load, in the same currency.
        scaling: the numbers for autoscaling, for the planned rate.
        target_rps, concurrency, invocations_per_minute: the same numbers with intervals: requests
            per second and requests in flight of a replica, invocations per minute and instance as
            SageMaker counts them.
        notes: what the reader must know, one sentence each.
    """

    point: OperatingPoint
    rate_rps: float
    p99_limit_s: float | None
    headroom: float
    replica_rps: Quantity
    replicas: Quantity
    load: ReplicaLoad
    one_down: ReplicaLoad | None
    memory_mb: Quantity | None
    total_memory_mb: Quantity | None
    price_per_hour: float | None
    cost_per_million: Quantity | None
    scaling: Scaling
    target_rps: Quantity
    concurrency: Quantity
    invocations_per_minute: Quantity
    notes: tuple[str, ...]

    @property
    def count(self) -> int:
        """The number of replicas."""
        return int(self.replicas.value)

    @property
    def has_intervals(self) -> bool:
        """Whether a confirmation gives the rate an interval."""
        return self.replica_rps.low is not None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data; intervals as `value`, `low`, `high`."""
        return {
            "trial": self.point.number,
            "settings": self.point.config.to_dict(),
            "rps": self.rate_rps,
            "p99_limit_s": self.p99_limit_s,
            "headroom": self.headroom,
            "has_intervals": self.has_intervals,
            "replica_rps": vars(self.replica_rps),
            "replicas": vars(self.replicas),
            "load": _load_dict(self.load),
            "one_down": _load_dict(self.one_down) if self.one_down else None,
            "memory_mb": _optional(self.memory_mb),
            "total_memory_mb": _optional(self.total_memory_mb),
            "price_per_hour": self.price_per_hour,
            "cost_per_million": _optional(self.cost_per_million),
            "autoscaling": {
                "target_rps": vars(self.target_rps),
                "concurrency": vars(self.concurrency),
                "sagemaker_invocations_per_minute": vars(self.invocations_per_minute),
                "horizontal_pod_autoscaler": {
                    "minReplicas": self.scaling.least_replicas,
                    "maxReplicas": self.scaling.most_replicas,
                    "metrics": [self.scaling.pod_target],
                },
            },
            "notes": list(self.notes),
        }


def _optional(quantity: Quantity | None) -> dict[str, float | None] | None:
    return vars(quantity) if quantity else None


def _load_dict(load: ReplicaLoad) -> dict[str, Any]:
    quantiles = ("p50_s", "p90_s", "p99_s")
    return {**vars(load), **{name: _optional(getattr(load, name)) for name in quantiles}}


def capacity_plan(
    point: OperatingPoint,
    rate_rps: float,
    p99_s: float | None = None,
    headroom: float = DEFAULT_HEADROOM,
    price_per_hour: float | None = None,
) -> CapacityPlan:
    """Return the plan for a load on replicas of a configuration, which share it evenly.

    The plan counts with the lower end of the interval of the sustained rate, as exports do.
    Expected latencies are those at the load's share of the mean rate; their bounds are those at its
    shares of both ends.

    Args:
        point: a measured configuration.
        rate_rps: the load of all replicas, requests/s.
        p99_s: limit on the p99 latency, seconds. It lowers the rate of a replica to that up to
            which the limit holds.
        headroom: share of a replica's rate to keep free, 0 to 0.95.
        price_per_hour: of a replica, in any currency.

    Raises:
        RunError: the configuration was not measured, does not hold the limit at any measured load,
            or the load of a replica exceeds the highest at which latency was measured.
        InputError: an argument is out of range.
    """
    _check_arguments(rate_rps, p99_s, headroom, price_per_hour)
    if not point.is_measured or not point.sustained_rps:
        raise RunError(f"{point.name} has no measured rate; plan with a trial that sustained one")
    curve = LatencyCurve.of(point.latency)
    share = 1.0 if p99_s is None else _share_within(point, curve, p99_s)
    expected = point.rate or Interval(*[point.sustained_rps] * 3)
    has_interval = point.rate is not None
    scaling = Scaling.of(expected.low, curve, headroom, rate_rps, share)
    count = scaling.replicas or 1
    load = _replica_load(curve, expected, has_interval, rate_rps, count, scaling.rate_rps)
    if curve.at(load.rps / expected.low, "p99_s") is None:
        raise RunError(_beyond_curve(point, curve, load.rps, expected.low))
    ends = [
        Scaling.of(rate, curve, headroom, rate_rps, share)
        for rate in ((expected.low, expected.high) if has_interval else ())
    ]
    replicas = Quantity.of(count, [end.replicas or 1 for end in ends])
    memory = _memory(point)
    return CapacityPlan(
        point=point,
        rate_rps=rate_rps,
        p99_limit_s=p99_s,
        headroom=headroom,
        replica_rps=Quantity.of(share * expected.mean, [end.rate_rps for end in ends]),
        replicas=replicas,
        load=load,
        one_down=_replica_load(curve, expected, has_interval, rate_rps, count - 1, scaling.rate_rps)
        if count > 1
        else None,
        memory_mb=memory,
        total_memory_mb=_times(memory, count) if memory else None,
        price_per_hour=price_per_hour,
        cost_per_million=_times(replicas, price_per_hour / _HOUR_S / rate_rps * 1e6)
        if price_per_hour is not None
        else None,
        scaling=scaling,
        target_rps=Quantity.of(scaling.target_rps, [end.target_rps for end in ends]),
        concurrency=Quantity.of(scaling.concurrency, [end.concurrency for end in ends]),
        invocations_per_minute=Quantity.of(
            scaling.invocations_per_minute, [end.invocations_per_minute for end in ends]
        ),
        notes=tuple(_notes(point, curve, load, count)),
    )


def _check_arguments(
    rate_rps: float, p99_s: float | None, headroom: float, price_per_hour: float | None
) -> None:
    if not 0 < rate_rps < math.inf:
        raise InputError(f"the load must be a positive number of requests/s (got {rate_rps:g})")
    if p99_s is not None and not 0 < p99_s < math.inf:
        raise InputError(f"the limit on p99 must be a positive number of seconds (got {p99_s:g})")
    if not 0 <= headroom <= MAX_HEADROOM:
        raise InputError(f"the headroom must be from 0 to {MAX_HEADROOM:g} (got {headroom:g})")
    if price_per_hour is not None and not 0 <= price_per_hour < math.inf:
        raise InputError(f"the price per hour must be at least 0 (got {price_per_hour:g})")


def _share_within(point: OperatingPoint, curve: LatencyCurve, p99_s: float) -> float:
    share = curve.share_within(p99_s)
    if share is not None:
        return share
    least = curve.least_p99
    if least is None:
        raise RunError(f"{point.name} has no measured p99 latency; plan without --p99")
    lowest = curve.points[0]
    text = f"{point.name} does not hold a p99 of {p99_s:g} s at any measured load"
    if (least.p99_s or 0.0) <= p99_s:
        text = (
            f"{point.name} exceeds a p99 of {p99_s:g} s at the lowest measured load, "
            f"{lowest.rate_rps:.3g} rps, with {lowest.p99_s:.3g} s"
        )
    raise RunError(
        f"{text}: its lowest measured p99 is {least.p99_s:.3g} s, at {least.rate_rps:.3g} rps"
    )


def _beyond_curve(
    point: OperatingPoint, curve: LatencyCurve, load_rps: float, sustained_rps: float
) -> str:
    if not curve.points:
        return f"{point.name} has no measured latency; choose a trial that has one"
    # Rounded up: the headroom that is named must be enough.
    enough = math.ceil(100 * (1 - curve.highest_share)) / 100
    return (
        f"a replica of {point.name} would receive {load_rps:.3g} rps, and no latency was measured "
        f"above {curve.highest_share * sustained_rps:.3g} rps; use a headroom of at least "
        f"{enough:g}"
    )


def _replica_load(
    curve: LatencyCurve,
    expected: Interval,
    has_interval: bool,
    rate_rps: float,
    replicas: int,
    planned_rps: float,
) -> ReplicaLoad:
    rps = rate_rps / replicas

    def latency(quantile: Quantile) -> Quantity | None:
        value = curve.at(rps / expected.mean, quantile)
        if value is None:
            return None
        bounds = None
        if has_interval:
            bounds = curve.bounds(rps / expected.high, rps / expected.low, quantile)
        return Quantity.of(value, bounds)

    # A load that equals the rate must not exceed it because of rounding.
    is_sustained = rps <= planned_rps * (1 + 1e-9)
    share = rps / expected.mean
    p50_s, p90_s, p99_s = latency("p50_s"), latency("p90_s"), latency("p99_s")
    return ReplicaLoad(replicas, rps, share, p50_s, p90_s, p99_s, is_sustained)


def _memory(point: OperatingPoint) -> Quantity | None:
    if point.memory_mb is None:
        return None
    interval = prediction_interval(point.memory_peaks_mb)
    return Quantity.of(point.memory_mb, (interval.low, interval.high) if interval else None)


def _times(quantity: Quantity, factor: float) -> Quantity:
    bounds = [factor * b for b in (quantity.low, quantity.high) if b is not None]
    return Quantity.of(factor * quantity.value, bounds)


def _notes(point: OperatingPoint, curve: LatencyCurve, load: ReplicaLoad, count: int) -> list[str]:
    notes = []
    if point.rate is None:
        notes.append(
            "the interval is not known: no confirmation measured this configuration's sustained "
            "rate, and the rate of the search is on average too high"
        )
    if curve.points and load.share < curve.lowest_share:
        lowest = curve.points[0]
        notes.append(
            f"no load below {lowest.rate_rps:.3g} rps was measured on a replica: the latencies are "
            "those at that load"
        )
    if count == 1:
        notes.append("one replica serves the load; nothing is served while it is down")
    return notes
