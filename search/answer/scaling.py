"""What one replica can take: the numbers that a platform scales by. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from search.answer.latency_curve import LatencyCurve
from search.headroom import DEFAULT_HEADROOM

#: The rate of requests per pod, as a metrics adapter for Kubernetes must name it.
POD_METRIC = "torchserve_requests_per_second"


@dataclass(frozen=True)
class Scaling:
    """The load that a replica is planned for.

    Attributes:
        rate_rps: the rate that a replica sustains, within the limit on latency if there is one.
        latency_s: median time that a request takes at the target rate, seconds; 0 if unknown.
        capacity: requests that a replica holds before it refuses one: batches and queue; None if
            it is not known.
        headroom: share of the rate that is kept free.
        replicas: number of replicas for the expected load; None if it is not known.
    """

    rate_rps: float
    latency_s: float
    capacity: int | None = None
    headroom: float = DEFAULT_HEADROOM
    replicas: int | None = None

    @classmethod
    def of(
        cls,
        sustained_rps: float,
        curve: LatencyCurve,
        headroom: float = DEFAULT_HEADROOM,
        load_rps: float | None = None,
        share: float = 1.0,
        capacity: int | None = None,
    ) -> Scaling:
        """Return the scaling of a replica.

        Args:
            sustained_rps: that it sustains.
            load_rps: the expected load of all replicas; None if it is not known.
            share: of the sustained rate that a limit on latency permits.
        """
        rate_rps = share * sustained_rps
        replicas = replicas_for(load_rps, rate_rps, headroom) if load_rps is not None else None
        latency_s = curve.at(share * (1 - headroom), "p50_s") or 0.0
        return cls(rate_rps, latency_s, capacity, headroom, replicas)

    @property
    def target_rps(self) -> float:
        """Rate at which a replica is full and another one is started."""
        return self.rate_rps * (1 - self.headroom)

    @property
    def concurrency(self) -> int:
        """Requests in flight at the target rate, by Little's law."""
        return max(1, math.ceil(self.target_rps * self.latency_s))

    @property
    def invocations_per_minute(self) -> int:
        """The target rate as SageMaker counts it."""
        return max(1, math.floor(60 * self.target_rps))

    @property
    def pod_target(self) -> dict[str, Any]:
        """The target rate as a HorizontalPodAutoscaler states it for a metric of pods."""
        average = f"{max(1, math.floor(1000 * self.target_rps))}m"
        return {
            "type": "Pods",
            "pods": {
                "metric": {"name": POD_METRIC},
                "target": {"type": "AverageValue", "averageValue": average},
            },
        }

    @property
    def least_replicas(self) -> int:
        """Replicas that always run: those for the expected load, else two."""
        return self.replicas or 2

    @property
    def most_replicas(self) -> int:
        """Replicas at most: twice those that always run."""
        return 2 * self.least_replicas


def replicas_for(load_rps: float, rate_rps: float, headroom: float) -> int:
    """Return the replicas that sustain a load with this share of their rate kept free."""
    # A load that is a multiple of the target must not need one more because of rounding.
    return max(1, math.ceil(load_rps / (rate_rps * (1 - headroom)) - 1e-9))
