"""The true zero-loss rate of a law: an event simulation, on no clock.

Batches are simulated as they form; the rest follows from when each request was dequeued. It
shares the parameters with the stub's line, and none of its code: the tests compare the two.

A rate is sustained where

- at least half of the simulated windows see no request refused and none answered later than
  the timeout; each begins empty and ends with its last answer;
- the offered rate is not above what the workers serve in full batches (utilisation at most 1);
- the mean number of requests outstanding in the window's last quarter is above that in its
  second quarter by less than 1 % of the requests offered, on the mean over all windows. Single
  windows of a random law grow or shrink by chance.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.law import Law

Floats = npt.NDArray[np.float64]

GROWTH = 0.01
WIDTH = 0.005
_STEP = 0.9
_LOWEST = 0.005
#: Simulated windows of a random law; one is enough for a law without chance.
_WINDOWS = 60


@dataclass(frozen=True)
class Window:
    """How long requests are offered, and how.

    Attributes:
        least_s, cycles: its length is least_s, but at least `cycles` rounds of full batches.
        poisson: arrivals are independent; else their distance is constant.
        timeout_s: a later answer is a loss.
    """

    least_s: float = 5.0
    cycles: int = 20
    poisson: bool = False
    timeout_s: float = 10.0

    def length_s(self, law: Law, rate_rps: float) -> float:
        """Its length at a rate, seconds."""
        return max(self.least_s, self.cycles * law.workers * law.batch / rate_rps)


@dataclass(frozen=True)
class Served:
    """One simulated window; one entry for each request."""

    arrived: Floats
    dequeued: Floats
    answered: Floats

    def refused(self, queue: int) -> bool:
        """Whether a request came while `queue` earlier ones still waited."""
        return bool(np.any(self.dequeued[:-queue] > self.arrived[queue:]))

    def growth(self, length_s: float) -> float:
        """Mean outstanding in the last quarter less that in the second, ÷ requests offered."""

        def outstanding(begin: float, end: float) -> float:
            inside = np.clip(self.answered, begin, end) - np.clip(self.arrived, begin, end)
            return float(inside.sum()) / (end - begin)

        last = outstanding(0.75 * length_s, length_s)
        second = outstanding(0.25 * length_s, 0.5 * length_s)
        return (last - second) / max(len(self.arrived), 1)


def simulate(law: Law, arrived: Floats, noise: Sequence[float]) -> Served:
    """Serve these arrivals with a queue without bound.

    Up to the first refusal a bounded queue does the same, and a window with one has failed.

    Args:
        noise: the service time ÷ its mean of each batch, as many as there are requests.
    """
    arrivals = arrived.tolist()
    mean_s = [law.mean_s(n) for n in range(law.batch + 1)]
    firsts: list[int] = []
    taken_at: list[float] = []
    ends: list[float] = []
    free_at, unlocked_at, first = [0.0] * law.workers, 0.0, 0
    while first < len(arrivals):
        taken = max(free_at[0], unlocked_at, arrivals[first])
        most = min(first + law.batch, len(arrivals))
        after = bisect_right(arrivals, taken + law.delay_s, first + 1, most)
        full = after - first == law.batch
        unlocked_at = max(taken, arrivals[after - 1]) if full else taken + law.delay_s
        end = unlocked_at + mean_s[after - first] * noise[len(ends)]
        heapq.heapreplace(free_at, end)
        firsts.append(first)
        taken_at.append(taken)
        ends.append(end)
        first = after
    sizes = np.diff([*firsts, len(arrivals)])
    dequeued = np.maximum(np.repeat(taken_at, sizes), arrived)
    return Served(arrived, dequeued, np.repeat(ends, sizes))


def noise_of(law: Law, batches: Sequence[tuple[int, float]]) -> Floats:
    """Measured service times ÷ their law's means, for `sustained_rps` to draw from."""
    return np.array([seconds / law.mean_s(n) for n, seconds in batches])


def sustained_rps(
    law: Law, window: Window = Window(), noise: Floats | None = None, seed: int = 0
) -> float:
    """The highest rate that is sustained, to 0.5 %; 0 where none is.

    Args:
        noise: service times ÷ their means that were measured; else the law's own.
    """
    high = law.capacity_rps
    if noise is not None:
        high /= float(noise.mean())
    if _is_sustained(law, window, noise, seed, high):
        return high
    # Not every rate below a sustained one is sustained too: look from above.
    low = high * _STEP
    while not _is_sustained(law, window, noise, seed, low):
        high, low = low, low * _STEP
        if low < _LOWEST * law.capacity_rps:
            return 0.0
    while high - low > WIDTH * high:
        middle = (low + high) / 2
        if _is_sustained(law, window, noise, seed, middle):
            low = middle
        else:
            high = middle
    return low


def _is_sustained(
    law: Law, window: Window, noise: Floats | None, seed: int, rate_rps: float
) -> bool:
    length_s = window.length_s(law, rate_rps)
    varied = law.exponential if noise is None else len(set(noise.tolist())) > 1
    windows = _WINDOWS if window.poisson or varied else 1
    growths: list[float] = []
    lost = 0
    # The same draws at every rate: the difference of two rates is not that of their luck.
    for generator in np.random.default_rng(seed).spawn(windows):
        served = simulate(law, *_draw(law, window, noise, generator, rate_rps, length_s))
        late = served.answered - served.arrived > window.timeout_s
        if served.refused(law.queue) or late.any():
            lost += 1
        if 2 * lost > windows:
            return False
        growths.append(served.growth(length_s))
    return float(np.mean(growths)) < GROWTH


def _draw(
    law: Law,
    window: Window,
    noise: Floats | None,
    generator: np.random.Generator,
    rate_rps: float,
    length_s: float,
) -> tuple[Floats, list[float]]:
    times, services = generator.spawn(2)
    if window.poisson:
        expected = rate_rps * length_s
        count = int(expected + 6 * expected**0.5 + 10)
        arrived = np.cumsum(times.exponential(1.0, count)) / rate_rps
        arrived = arrived[arrived < length_s]
    else:
        arrived = np.arange(0.0, length_s, 1 / rate_rps)
    if noise is not None:
        drawn = services.choice(noise, len(arrived))
    elif law.exponential:
        drawn = services.exponential(1.0, len(arrived))
    else:
        drawn = np.ones(len(arrived))
    return arrived, drawn.tolist()
