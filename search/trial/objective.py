"""What a run optimizes, under which limits: scores of configurations, and what they miss. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from loadgen.formatting import format_percent
from search.spec.goal import GoalSection
from search.trial.result import TrialResult, TrialState

#: Excess of a configuration of which the figure that a limit needs is unknown.
_UNKNOWN_EXCESS = 10.0
_UNITS = {"sustained_rps": "rps", "p99_s": "s", "p95_s": "s", "memory_mb": "MiB", "workers": ""}
_NAMES = {
    "sustained_rps": "sustained rate",
    "p99_s": "p99 latency",
    "p95_s": "p95 latency",
    "memory_mb": "peak memory",
    "workers": "workers",
}


@dataclass(frozen=True)
class Shortfall:
    """A limit that a configuration misses.

    Attributes:
        limit: sustained_rps, p99_s, p95_s, memory_mb or workers.
        value: of the configuration; None if unknown.
        bound: the highest value that is allowed; of sustained_rps, the lowest.
        reason: why the value is unknown or does not count, if it is not `value` itself.
    """

    limit: str
    value: float | None
    bound: float
    reason: str = ""

    @property
    def excess(self) -> float:
        """How much the limit is missed, as a share of it."""
        if not self.value:
            return _UNKNOWN_EXCESS
        ratio = self.value / self.bound
        return max((1 / ratio if self.limit == "sustained_rps" else ratio) - 1, 0.0)

    def __str__(self) -> str:
        name, unit = _NAMES[self.limit], _UNITS[self.limit]
        bound = f"{_figure(self.bound)} {unit}".rstrip()
        if self.reason or not self.value:
            return f"{name}: {self.reason or 'unknown'} (limit {bound})"
        share = format_percent(abs(self.value / self.bound - 1))
        side = "below" if self.limit == "sustained_rps" else "above"
        needed = "the needed" if self.limit == "sustained_rps" else "the limit of"
        found = f"{_figure(self.value)} {unit}".rstrip()
        return f"{name} {found}, {share} {side} {needed} {bound}"


@dataclass(frozen=True)
class Figures:
    """What the trials of one configuration measured: medians, and the highest peak of the memory.

    Attributes:
        sustained_rps: 0 if most trials failed; None if every trial was pruned.
        p99_s, p95_s: at `goal.for_rps`; None if unknown.
        is_served: whether `goal.for_rps` was served; None if unknown.
        limit_excess: see `LatencyRecord`.
        workers: of all models whose number is known.
    """

    sustained_rps: float | None = None
    unlimited_rps: float | None = None
    capacity_rps: float | None = None
    p99_s: float | None = None
    p95_s: float | None = None
    is_served: bool | None = None
    not_served: str = ""
    limit_excess: float = 0.0
    memory_mb: float | None = None
    workers: int = 0

    @classmethod
    def of(cls, results: Sequence[TrialResult]) -> Figures:
        """Return the figures of one configuration; failures of the host do not count."""
        own = [r for r in results if not r.host_fault]
        ended = [r for r in own if r.state is not TrialState.PRUNED]
        targets = [r.latency.target for r in own if r.latency.target is not None]
        served = [target.is_served for target in targets]
        return cls(
            sustained_rps=median(r.sustained_rps or 0.0 for r in ended) if ended else None,
            unlimited_rps=_median(r.rate.unlimited_rps for r in own),
            capacity_rps=_median(r.capacity_rps or None for r in own),
            p99_s=_median(target.p99_s for target in targets),
            p95_s=_median(target.p95_s for target in targets),
            is_served=2 * sum(served) >= len(served) if served else None,
            not_served=next((target.reason for target in targets if not target.is_served), ""),
            limit_excess=_median(r.latency.limit_excess for r in ended) or 0.0,
            memory_mb=max((r.server.peak_memory_mb or 0 for r in own), default=0) or None,
            workers=workers_of(own[-1]) if own else 0,
        )


@dataclass(frozen=True)
class Objective:
    """The objective of a run and its limits; see `GoalSection`."""

    kind: str = "rate"
    for_rps: float | None = None
    required_rps: float | None = None
    p99_s: float | None = None
    p95_s: float | None = None
    memory_mb: float | None = None
    workers: int | None = None

    @classmethod
    def of(cls, goal: GoalSection) -> Objective:
        """Return the objective of a specification."""
        limits = goal.limits.model_dump()
        return cls(goal.objective, goal.for_rps, goal.required_rps, **limits)

    @classmethod
    def from_spec(cls, data: Mapping[str, Any]) -> Objective:
        """Return the objective of the plain data of a specification."""
        return cls.of(GoalSection.model_validate(data.get("goal") or {}))

    @property
    def maximizes_rate(self) -> bool:
        """Whether the highest rate is looked for."""
        return self.kind == "rate"

    @property
    def limits_latency(self) -> bool:
        """Whether a latency is limited."""
        return self.p99_s is not None or self.p95_s is not None

    @property
    def compares_capacities(self) -> bool:
        """Whether closed loops alone show which configuration is better."""
        return self.maximizes_rate and not self.limits_latency

    def is_small_enough(self, figures: Figures) -> bool:
        """Return whether the limits of memory and workers are met."""
        return not list(self._of_size(figures))

    @property
    def has_limits(self) -> bool:
        """Whether a configuration that serves may still miss the goal."""
        limits = (self.memory_mb, self.workers, self.required_rps)
        return self.limits_latency or any(limit is not None for limit in limits)

    def score(self, figures: Figures) -> float:
        """Return what is maximized: requests/s, 1 ÷ p99 or 1 ÷ MiB; 0 if unknown."""
        if self.kind == "latency":
            return 1 / figures.p99_s if figures.p99_s and figures.is_served else 0.0
        if self.kind == "footprint":
            serves = figures.memory_mb and figures.sustained_rps
            return 1 / figures.memory_mb if serves and figures.memory_mb else 0.0
        return figures.sustained_rps or 0.0

    def rank(self, figures: Figures) -> tuple[float, ...]:
        """Return what orders configurations that meet the limits; the highest is the best."""
        return self.score(figures), -figures.workers, -(figures.p99_s or 0.0)

    def shortfalls(self, figures: Figures) -> tuple[Shortfall, ...]:
        """Return the limits that a configuration misses; empty if it meets the goal."""
        return tuple(
            shortfall
            for found in (self._of_rate(figures), self._of_size(figures))
            for shortfall in found
        )

    def _of_rate(self, figures: Figures) -> Iterable[Shortfall]:
        if self.required_rps is None:
            if self.limits_latency and not figures.sustained_rps:
                name = "p95_s" if self.p99_s is None else "p99_s"
                bound = getattr(self, name)
                excess = figures.limit_excess
                value = bound * (1 + excess) if figures.unlimited_rps and excess > 0 else None
                reason = "" if value else "no rate was sustained"
                if value and self.p99_s is not None and self.p95_s is not None:
                    # The record does not name the limit that is exceeded most.
                    reason = f"it or p95 is {format_percent(excess)} above its limit"
                yield Shortfall(name, value, bound, reason)
            return
        rps = figures.capacity_rps if figures.sustained_rps is None else figures.sustained_rps
        if (rps or 0.0) < self.required_rps:
            yield Shortfall("sustained_rps", rps, self.required_rps)
        elif figures.is_served is False:
            reason = f"{self.for_rps:.3g} rps with Poisson arrivals: {figures.not_served}"
            yield Shortfall("sustained_rps", rps, self.required_rps, reason)
        for name in ("p99_s", "p95_s"):
            bound, value = getattr(self, name), getattr(figures, name)
            if bound is not None and (value is None or value > bound):
                yield Shortfall(name, value, bound)

    def _of_size(self, figures: Figures) -> Iterable[Shortfall]:
        memory_mb, workers = figures.memory_mb, figures.workers
        if self.memory_mb is not None and memory_mb is not None and memory_mb > self.memory_mb:
            yield Shortfall("memory_mb", memory_mb, self.memory_mb)
        if self.workers is not None and workers > self.workers:
            yield Shortfall("workers", workers, self.workers)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def workers_of(result: TrialResult) -> int:
    """Return the workers of all models of a trial's server whose number is known."""
    config = result.config
    own = config.workers or result.server.workers_ready or result.host.cores or 0
    return own + sum(int(settings.get("workers") or 0) for settings in config.models.values())


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
