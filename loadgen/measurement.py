"""A window of load: what was offered, and the raw result."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import sqrt
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from loadgen.backlog import SETTLING, UNKNOWN, Overload, overload
from loadgen.formatting import format_percent
from loadgen.histogram import Histogram
from loadgen.schedule import Burst, Closed, Constant, Poisson, Schedule

Counts = npt.NDArray[np.int64]
Number = TypeVar("Number", int, float)

BIN_S = 0.02
LATE_S, LATE_SHARE = 0.005, 0.02
BUSY_CPU, STARVED = 0.8, 0.02


@dataclass(frozen=True)
class Load:
    """The load of a window.

    Attributes:
        schedule: when requests are due, or how many users send.
        duration_s: how long requests are due; an upper bound if the window can end early.
        timeout_s: a request that is not answered within this time of its due time has failed.
        cycle_requests: requests that the server takes in one round of batches.
    """

    schedule: Schedule
    duration_s: float
    timeout_s: float = 10.0
    cycle_requests: int = 1

    def __post_init__(self) -> None:
        if not (self.duration_s > 0 and self.timeout_s > 0 and self.cycle_requests >= 1):
            raise ValueError(f"durations and counts must be positive: {self}")

    @property
    def rate_rps(self) -> float | None:
        """The offered rate; None for a burst or a closed loop."""
        return self.schedule.rate_rps if isinstance(self.schedule, Constant | Poisson) else None


@dataclass(frozen=True)
class Group:
    """The results of the requests of one group of a mix, such as one model.

    Attributes:
        latency: answer − due; a failed request counts as at least the timeout.
        errors: failed requests by cause.
    """

    latency: Histogram = field(default_factory=Histogram)
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def ended(self) -> int:
        """Requests that were answered, correctly or not, or timed out."""
        return len(self.latency)

    @property
    def failed(self) -> int:
        """Of these, requests that were not answered correctly and in time."""
        return self.errors.total()


@dataclass(frozen=True)
class Measurement:
    """The raw result of a window, independent of any verdict: counts, from which ratios derive.

    Attributes:
        scheduled: requests that were due.
        sent: of these, requests that were sent.
        succeeded: of these, requests that were answered correctly and in time.
        errors: failed requests by cause.
        span_s: from the first due time to the end of the schedule.
        latency: answer − due; a failed or unsent request counts as at least the timeout.
        service: answer − send, of requests that succeeded.
        lateness: send − due, the generator's own error.
        begun, done: requests sent, and requests ended (correctly or not), in each bin of BIN_S.
        good: requests succeeded in each bin.
        client_cpu: CPU time of the busiest load generator process ÷ span.
        client_cpu_s: CPU seconds of the load generator processes within the span, by `host_id`.
        client_run_delay: longest wait of a load generator process for a core ÷ span.
        last_answer_s: when the last correct answer came, from the start; 0 without one.
        groups: the results by group of a mix; empty without a mix.
        start_offset_s: how long after the common start the last load generator process began.
        background: the windows of other models' loads at the same time, by model.
        observation: a wrapper's observations of the window; opaque to this package.
    """

    load: Load
    scheduled: int
    sent: int
    succeeded: int
    errors: Mapping[str, int]
    span_s: float
    latency: Histogram
    service: Histogram
    lateness: Histogram
    begun: Counts
    done: Counts
    good: Counts
    client_cpu: float = 0.0
    client_cpu_s: Mapping[str, float] = field(default_factory=dict)
    client_run_delay: float = 0.0
    start_offset_s: float = 0.0
    last_answer_s: float = 0.0
    groups: Mapping[str, Group] = field(default_factory=dict)
    background: Mapping[str, Measurement] = field(default_factory=dict)
    observation: object | None = None

    @property
    def unsent(self) -> int:
        """Requests that were due and never sent."""
        return self.scheduled - self.sent

    @property
    def failed(self) -> int:
        """Requests that were sent and not answered correctly and in time."""
        return sum(self.errors.values())

    @property
    def success_rate(self) -> float | None:
        """succeeded ÷ scheduled; None if nothing was scheduled."""
        return self.succeeded / self.scheduled if self.scheduled else None

    @cached_property
    def goodput_rps(self) -> float:
        """Correctly answered requests per second in the window's steady part."""
        bins = int(self.span_s / BIN_S)
        first = int(bins * SETTLING)
        return (
            float(self.good[first:bins].sum() / ((bins - first) * BIN_S)) if bins > first else 0.0
        )

    @property
    def cycle_s(self) -> float:
        """The time of one round of batches.

        A full round takes as many requests as all workers hold. If batches do not fill, rounds
        are shorter, and no longer than a request's latency.
        """
        rate = self.load.rate_rps or self.goodput_rps or 1.0
        full = self.load.cycle_requests / rate
        median_s = self.latency.quantile(0.5)
        return max(full if median_s is None else min(full, median_s), 1 / rate, BIN_S)

    @cached_property
    def overload(self) -> Overload:
        """How fast requests pile up; `UNKNOWN` for a burst or a closed loop."""
        rate = self.load.rate_rps
        bins = int(self.span_s / BIN_S)
        if rate is None or bins < 1:
            return UNKNOWN
        outstanding = np.cumsum(self.begun - self.done)[:bins].astype(float)
        return overload(outstanding, BIN_S, rate, self.cycle_s)

    @property
    def generator_limited(self) -> str | None:
        """Why this window is no evidence about the server; None if it is.

        A window is limited if significantly more than one request in a hundred was sent too late.
        The margin allows for a short pause of the host. A closed loop has no due times and is
        never late.
        """
        if isinstance(self.load.schedule, Closed | Burst):
            return None
        if self.unsent:
            return f"{self.unsent} of {self.scheduled} requests were not sent"
        p99_late_s, median_s = self.lateness.quantile(0.99), self.latency.quantile(0.5)
        if p99_late_s is None or median_s is None:
            return None
        too_late = self.lateness.count_above(max(LATE_S, LATE_SHARE * median_s))
        if too_late <= _max_late_by_chance(self.sent):
            return None
        if self.client_cpu > BUSY_CPU:
            why = f"the load generator used {format_percent(self.client_cpu)} of its core"
        elif self.client_run_delay > STARVED:
            delay = format_percent(self.client_run_delay)
            why = f"the load generator waited for a core {delay} of the time"
        else:
            why = "the load generator was late"
        return f"p99 lateness was {1000 * p99_late_s:.1f} ms; {why}"

    def summary(self) -> dict[str, Any]:
        """Return plain JSON data: counts, derived figures, encoded histograms."""
        schedule = self.load.schedule
        bounds = self.overload
        return {
            "schedule": {"kind": type(schedule).__name__.lower(), **vars(schedule)},
            "timeout_s": self.load.timeout_s,
            "span_s": round(self.span_s, 3),
            "scheduled": self.scheduled,
            "sent": self.sent,
            "succeeded": self.succeeded,
            "errors": dict(self.errors),
            "success_rate": self.success_rate,
            "goodput_rps": self.goodput_rps,
            "overload": None if bounds is UNKNOWN else [bounds.low, bounds.fraction, bounds.high],
            "latency_s": _quantiles(self.latency),
            "service_s": _quantiles(self.service),
            "lateness_s": _quantiles(self.lateness),
            "client_cpu": round(self.client_cpu, 4),
            "client_run_delay": round(self.client_run_delay, 4),
            "start_offset_s": round(self.start_offset_s, 4),
            "generator_limited": self.generator_limited,
            "latency_histogram": self.latency.encode(),
            "groups": {
                name: {
                    "ended": group.ended,
                    "errors": dict(group.errors),
                    "latency_s": _quantiles(group.latency),
                }
                for name, group in self.groups.items()
            },
            "background": {
                model: {
                    "rate_rps": window.load.rate_rps,
                    "scheduled": window.scheduled,
                    "succeeded": window.succeeded,
                    "errors": dict(window.errors),
                    "latency_s": _quantiles(window.latency),
                    "generator_limited": window.generator_limited,
                }
                for model, window in self.background.items()
            },
        }


def merge(parts: Iterable[Measurement]) -> Measurement:
    """Return a window's measurement from those of its load generator processes.

    Counts are added bin by bin; a part whose window ended earlier has none in later bins.
    """
    first, *rest = parts
    merged = first
    latency, service, lateness = Histogram(), Histogram(), Histogram()
    groups: defaultdict[str, Group] = defaultdict(Group)
    for part in (first, *rest):
        for name, group in part.groups.items():
            groups[name].latency.add(group.latency)
            groups[name].errors.update(group.errors)
        latency.add(part.latency)
        service.add(part.service)
        lateness.add(part.lateness)
    for part in rest:
        begun, done, good = (
            np.add(*same_length(both))
            for both in (
                (merged.begun, part.begun),
                (merged.done, part.done),
                (merged.good, part.good),
            )
        )
        merged = replace(
            merged,
            scheduled=merged.scheduled + part.scheduled,
            sent=merged.sent + part.sent,
            succeeded=merged.succeeded + part.succeeded,
            errors=added(merged.errors, part.errors),
            span_s=min(merged.span_s, part.span_s),
            begun=begun,
            done=done,
            good=good,
            client_cpu=max(merged.client_cpu, part.client_cpu),
            client_cpu_s=added(merged.client_cpu_s, part.client_cpu_s),
            client_run_delay=max(merged.client_run_delay, part.client_run_delay),
            start_offset_s=max(merged.start_offset_s, part.start_offset_s),
            last_answer_s=max(merged.last_answer_s, part.last_answer_s),
        )
    return replace(merged, latency=latency, service=service, lateness=lateness, groups=dict(groups))


def added(first: Mapping[str, Number], second: Mapping[str, Number]) -> dict[str, Number]:
    """Return the sums of two mappings by key; a key may be in one of them only."""
    return {**first, **{key: first.get(key, 0) + value for key, value in second.items()}}


def same_length(counts: Iterable[Counts]) -> list[Counts]:
    """Return arrays of counts, padded with zeros to the length of the longest."""
    arrays = list(counts)
    longest = max(map(len, arrays))
    return [np.pad(array, (0, longest - len(array))) for array in arrays]


Until = Callable[[Measurement], bool]


class LoadGenerator(Protocol):
    """Offers a load and measures it; a `Fleet` does."""

    async def measure(self, load: Load, until: Until | None = None) -> Measurement:
        """Offer `load`; end it early once `until` is true of the window so far."""
        ...

    async def add_capacity(self, limited: Measurement) -> str | None:
        """Strengthen the generator after a window in which it was the limit.

        Returns:
            What was done, in words; None if nothing is left to do.
        """
        ...


def _max_late_by_chance(requests: int) -> float:
    """Return the number of late requests that chance explains, at 95 % and one in a hundred."""
    expected = requests / 100
    return expected + 1.645 * sqrt(expected) + 1


def _quantiles(histogram: Histogram) -> dict[str, float | None]:
    return {
        "mean": histogram.mean(),
        **{f"p{q:g}": histogram.quantile(q / 100) for q in (50, 90, 95, 99, 99.9)},
        "max": histogram.quantile(1.0),
    }
