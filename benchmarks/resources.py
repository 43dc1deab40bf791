"""What a process and its children use over time, and whether it grows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields

import numpy as np
import psutil
from scipy import stats

MIB = 1 << 20
#: Sessions with fewer samples are too short for a slope: each trial is a cycle.
MIN_SAMPLES = 24
#: With fewer sessions, their slopes have no known spread.
MIN_SESSIONS = 5


@dataclass(frozen=True)
class Sample:
    """What was used at one time.

    Attributes:
        time_s: of `time.monotonic`.
        memory_mib: resident memory of the driver.
        files: open files of the driver.
        threads: threads of the driver.
        ports: listening ports of the driver and its children.
        processes: the driver and its children.
    """

    time_s: float
    memory_mib: float
    files: int
    threads: int
    ports: int
    processes: int


@dataclass(frozen=True)
class Slope:
    """The growth per hour: the mean over sessions, and its 95 % interval.

    The samples of one session depend on each other, so sessions are the unit.
    """

    per_hour: float
    low: float
    high: float
    sessions: int

    @property
    def differs_from_zero(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


FIGURES = tuple(field.name for field in fields(Sample) if field.name != "time_s")


def sample(process: psutil.Process, time_s: float) -> Sample:
    """Return what a process and its children use now.

    Raises:
        psutil.Error: the process has ended.
    """
    family = [process, *process.children(recursive=True)]
    with process.oneshot():
        return Sample(
            time_s,
            process.memory_info().rss / MIB,
            process.num_fds(),
            process.num_threads(),
            len(set(_ports(family))),
            len(family),
        )


def _ports(family: Sequence[psutil.Process]) -> Iterator[tuple[str, int]]:
    for process in family:
        with suppress(psutil.Error):
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    yield connection.laddr.ip, connection.laddr.port


def slope(sessions: Sequence[Sequence[Sample]], figure: str) -> Slope | None:
    """Return the growth of a figure; None with too few sessions that are long enough.

    Args:
        sessions: the samples of each session; the start of a session should be left out.
        figure: one of `FIGURES`.
    """
    slopes, weights = [], []
    for samples in sessions:
        times_h = np.array([each.time_s for each in samples]) / 3600
        if len(samples) < MIN_SAMPLES or np.ptp(times_h) == 0:
            continue
        values = np.array([float(getattr(each, figure)) for each in samples])
        slopes.append(float(np.polyfit(times_h - times_h.mean(), values, 1)[0]))
        # The variance of a slope falls with the spread of its times.
        weights.append(float(((times_h - times_h.mean()) ** 2).sum()))
    if len(slopes) < MIN_SESSIONS:
        return None
    mean = float(np.average(slopes, weights=weights))
    shares = np.array(weights) / sum(weights)
    variance = float((shares**2 * (np.array(slopes) - mean) ** 2).sum())
    # Few long sessions may have most of the weight.
    effective = 1 / float((shares**2).sum())
    half = stats.t.ppf(0.975, max(effective - 1, 1)) * math.sqrt(
        variance * effective / max(effective - 1, 1)
    )
    return Slope(mean, mean - half, mean + half, len(slopes))
