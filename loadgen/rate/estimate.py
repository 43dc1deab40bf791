"""The capacity of a saturated server, from the answers of a window. Pure.

Batches end in lumps, so that a count between two fixed times is wrong by up to a batch at each
end. Counting whole rounds of batches from one answer to another has no such error: the time of
k rounds is averaged over every answer of the first round, so that it does not matter which
worker's batch ends first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from loadgen.backlog import SETTLING, corrected_correlation
from loadgen.measurement import BIN_S, Measurement

#: Blocks of rounds whose durations give the interval.
_MAX_BLOCKS = 40
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """An estimate of the capacity.

    Attributes:
        rps: requests per second that a saturated server answered.
        low_rps, high_rps: two-sided 95 % interval from the variation within the windows. The
            server's speed between measurements varies more.
        seconds: the time that the estimate is based on.
        standard_error: from the same variation, ÷ rps; 0 if it is not known.
    """

    rps: float
    low_rps: float
    high_rps: float
    seconds: float
    standard_error: float = 0.0

    @property
    def relative_error(self) -> float:
        """Half the width of the interval ÷ the estimate."""
        return (self.high_rps - self.low_rps) / 2 / self.rps


def estimate_of(window: Measurement) -> Estimate | None:
    """Return the throughput between batch ends of a window in which the server was saturated.

    The answers of the first round, and of the first quarter of a short window, are left out.

    Returns:
        None if fewer than two rounds were answered.
    """
    times = answer_times(window)
    cycle = window.load.cycle_requests
    # The positions to begin at: whole rounds, at least a tenth of the answers.
    begins = cycle * max(1, round(0.1 * len(times) / cycle))
    rounds = (len(times) - begins) // cycle
    if rounds < 1:
        return None
    ahead = rounds * cycle
    elapsed_s = float((times[ahead:] - times[:-ahead]).mean())
    if elapsed_s <= 0:
        return None
    rps = ahead / elapsed_s
    standard_error, blocks = _standard_error(times, cycle)
    # Two answers in the same bin may be a bin apart.
    error = math.hypot(_half_width(standard_error, blocks), BIN_S / elapsed_s)
    low_rps, high_rps = rps * max(1 - error, 0.0), rps * (1 + error)
    return Estimate(rps, low_rps, high_rps, elapsed_s, standard_error if blocks else 0.0)


def pooled(estimates: Iterable[Estimate]) -> Estimate:
    """Return the mean of estimates of one server, weighted by their seconds.

    The interval is the wider one of that by the intervals of the estimates and that by their
    differences.
    """
    parts = list(estimates)
    if len(parts) == 1:
        return parts[0]
    seconds = sum(part.seconds for part in parts)
    weights = [part.seconds / seconds for part in parts]
    rps = sum(weight * part.rps for weight, part in zip(weights, parts, strict=True))
    within = math.hypot(*(w * (p.high_rps - p.rps) for w, p in zip(weights, parts, strict=True)))
    spread = sum(w * (p.rps - rps) ** 2 for w, p in zip(weights, parts, strict=True))
    between = stats.t.ppf((1 + _CONFIDENCE) / 2, len(parts) - 1) * math.sqrt(
        spread / (len(parts) - 1)
    )
    error = min(max(within, float(between)), rps)
    errors = (w * p.rps * p.standard_error for w, p in zip(weights, parts, strict=True))
    return Estimate(rps, rps - error, rps + error, seconds, math.hypot(*errors) / rps)


def answer_times(window: Measurement) -> npt.NDArray[np.float64]:
    """Return when each correct answer came, to a bin, without those of the beginning."""
    good = window.good[: int(window.span_s / BIN_S)]
    times = np.repeat(np.arange(1, len(good) + 1) * BIN_S, good)
    settled = int(np.searchsorted(times, SETTLING * window.span_s))
    first = max(window.load.cycle_requests, settled) - 1
    return times[max(first, 0) :]


def standard_error_of(window: Measurement) -> float:
    """Return the standard error of the throughput ÷ the throughput; 0 if it is not known yet."""
    error, effective = _standard_error(answer_times(window), window.load.cycle_requests)
    return error if effective else 0.0


def _half_width(error: float, effective: float) -> float:
    """Return half the width of the 95 % interval of a mean rate ÷ the rate.

    Args:
        error, effective: see `_standard_error`.
    """
    if not effective:
        return error
    quantile = float(stats.t.ppf((1 + _CONFIDENCE) / 2, effective - 1))
    return min(quantile * error, 1.0)


def _standard_error(times: npt.NDArray[np.float64], cycle: int) -> tuple[float, float]:
    """Return the standard error of a mean rate ÷ the rate, and the effective number of blocks.

    The number is 0 with too few blocks, and the error is then a bound.
    """
    rounds = (len(times) - 1) // cycle
    size = cycle * max(-(-rounds // _MAX_BLOCKS), 1)
    durations = np.diff(times[::size])
    count = len(durations)
    if count < 3:
        return 1 / (count + 1), 0.0
    residuals = durations - durations.mean()
    correlation = min(max(corrected_correlation(residuals, parameters=1), 0.0), 0.9)
    effective = max(count * (1 - correlation) / (1 + correlation), 2.0)
    return float(durations.std(ddof=1)) / math.sqrt(effective) / float(durations.mean()), effective
