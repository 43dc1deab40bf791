"""The true zero-loss rate of a law, by an event simulation without a clock.

Batches are simulated as they form; the rest follows from when each request was dequeued. The
simulation shares the parameters of `law.BatchServer` and none of its code: tests compare the two.

A rate is sustained if

- at least half of the simulated windows see no request refused and none answered later than
  the timeout; each begins empty and ends with its last answer;
- the offered rate is at most the workers' rate with full batches (utilisation at most 1);
- the mean number of outstanding requests in the window's last quarter exceeds that in its second
  quarter by less than 1 % of the requests offered, averaged over all windows. Single windows of a
  random law grow or shrink by chance.
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
    """The duration and the arrivals of a window.

    Attributes:
        least_s, cycles: the window lasts least_s seconds, and at least `cycles` rounds of full
            batches.
        poisson: whether arrivals are independent; otherwise their distance is constant.
        timeout_s: a later answer is a loss.
    """

    least_s: float = 5.0
    cycles: int = 20
    poisson: bool = False
    timeout_s: float = 10.0

    def duration_s(self, law: Law, rate_rps: float) -> float:
        """Return the duration at a rate, seconds."""
        return max(self.least_s, self.cycles * law.workers * law.batch / rate_rps)


@dataclass(frozen=True)
class ServedWindow:
    """One simulated window: when each request arrived, was dequeued and answered, seconds."""

    arrived: Floats
    dequeued: Floats
    answered: Floats

    def refused(self, queue: int) -> bool:
        """Return whether a request arrived while `queue` earlier ones waited."""
        return bool(np.any(self.dequeued[:-queue] > self.arrived[queue:]))

    def growth(self, duration_s: float) -> float:
        """Return the growth of the mean outstanding requests ÷ the requests offered.

        The growth is that from the second to the last quarter of the window.
        """

        def outstanding(begin: float, end: float) -> float:
            inside = np.clip(self.answered, begin, end) - np.clip(self.arrived, begin, end)
            return float(inside.sum()) / (end - begin)

        last = outstanding(0.75 * duration_s, duration_s)
        second = outstanding(0.25 * duration_s, 0.5 * duration_s)
        return (last - second) / max(len(self.arrived), 1)


def simulate(law: Law, arrived: Floats, noise: Sequence[float]) -> ServedWindow:
    """Serve arrivals with an unbounded queue.

    A bounded queue behaves the same up to the first refusal, and a window with one has failed.

    Args:
        noise: service time ÷ mean of each batch, one value per request.
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
    return ServedWindow(arrived, dequeued, np.repeat(ends, sizes))


def noise_of(law: Law, batches: Sequence[tuple[int, float]]) -> Floats:
    """Return measured service times ÷ the means of the law, for `sustained_rps`."""
    return np.array([seconds / law.mean_s(n) for n, seconds in batches])


def sustained_rps(
    law: Law, window: Window = Window(), noise: Floats | None = None, seed: int = 0
) -> float:
    """Return the highest sustained rate, to 0.5 %; 0 if there is none.

    Args:
        noise: measured service times ÷ their means; by the law if None.
    """
    high = law.capacity_rps
    if noise is not None:
        high /= float(noise.mean())
    if _is_sustained(law, window, noise, seed, high):
        return high
    # A rate below a sustained one is not always sustained, so the search comes from above.
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
    duration_s = window.duration_s(law, rate_rps)
    is_random = law.exponential if noise is None else len(set(noise.tolist())) > 1
    windows = _WINDOWS if window.poisson or is_random else 1
    growths: list[float] = []
    lossy = 0
    # The same draws at every rate, so that two rates do not differ by chance.
    for generator in np.random.default_rng(seed).spawn(windows):
        served = simulate(law, *_draw(law, window, noise, generator, rate_rps, duration_s))
        late = served.answered - served.arrived > window.timeout_s
        if served.refused(law.queue) or late.any():
            lossy += 1
        if 2 * lossy > windows:
            return False
        growths.append(served.growth(duration_s))
    return float(np.mean(growths)) < GROWTH


def _draw(
    law: Law,
    window: Window,
    noise: Floats | None,
    generator: np.random.Generator,
    rate_rps: float,
    duration_s: float,
) -> tuple[Floats, list[float]]:
    times, services = generator.spawn(2)
    if window.poisson:
        expected = rate_rps * duration_s
        count = int(expected + 6 * expected**0.5 + 10)
        arrived = np.cumsum(times.exponential(1.0, count)) / rate_rps
        arrived = arrived[arrived < duration_s]
    else:
        arrived = np.arange(0.0, duration_s, 1 / rate_rps)
    if noise is not None:
        drawn = services.choice(noise, len(arrived))
    elif law.exponential:
        drawn = services.exponential(1.0, len(arrived))
    else:
        drawn = np.ones(len(arrived))
    return arrived, drawn.tolist()
