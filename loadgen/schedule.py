"""When each request is due. Pure: nothing here sleeps or reads a clock."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_CHUNK = 4096


@dataclass(frozen=True)
class Constant:
    """One request every 1 / rate_rps seconds, the first at 0."""

    rate_rps: float

    def __post_init__(self) -> None:
        if not self.rate_rps > 0:
            raise ValueError(f"a rate must be positive: {self}")


@dataclass(frozen=True)
class Poisson:
    """Independent arrivals at rate_rps on average, drawn from seed."""

    rate_rps: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.rate_rps > 0:
            raise ValueError(f"a rate must be positive: {self}")


@dataclass(frozen=True)
class Burst:
    """All requests at once."""

    requests: int

    def __post_init__(self) -> None:
        if self.requests < 1:
            raise ValueError(f"a burst needs at least one request: {self}")


@dataclass(frozen=True)
class Closed:
    """Users that each wait for an answer before they send again; there are no due times.

    Attributes:
        requests: the window ends after this many requests of all users together; None for no limit.
    """

    users: int
    requests: int | None = None

    def __post_init__(self) -> None:
        if self.users < 1 or (self.requests is not None and self.requests < 1):
            raise ValueError(f"a closed loop needs at least one user, and one request: {self}")


OpenLoop = Constant | Poisson | Burst
Schedule = OpenLoop | Closed


@dataclass(frozen=True)
class Share:
    """The share of the index-th of `count` load generator processes."""

    index: int = 0
    count: int = 1

    def of(self, total: int) -> int:
        """Return this process's part of `total`; the parts of all processes add up to it."""
        return total // self.count + (self.index < total % self.count)


def due_times(schedule: OpenLoop, duration_s: float, share: Share = Share()) -> Iterator[float]:
    """Yield when this process's requests are due, seconds after the window's start, ascending.

    The shares of a constant schedule interleave; those of a Poisson one are independent and
    add up to one. Times are drawn in chunks, so that a long window needs little memory.
    """
    match schedule:
        case Burst(requests):
            return iter([0.0] * share.of(requests))
        case Constant(rate):
            ours = itertools.count(share.index, share.count)
            return itertools.takewhile(lambda due: due < duration_s, (k / rate for k in ours))
        case Poisson(rate, seed):
            generator = np.random.default_rng([seed, share.index])
            return itertools.takewhile(
                lambda due: due < duration_s, _arrivals(generator, rate / share.count)
            )


def _arrivals(generator: np.random.Generator, rate: float) -> Iterator[float]:
    now = 0.0
    while True:
        times = now + np.cumsum(generator.exponential(1 / rate, _CHUNK))
        now = float(times[-1])
        yield from times.tolist()
