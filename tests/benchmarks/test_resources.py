"""The growth of what a process uses."""

import os

import numpy as np
import psutil
import pytest

from benchmarks.resources import FIGURES, Sample, sample, slope


def sessions(growth_per_hour: float, count: int = 12, seed: int = 0) -> list[list[Sample]]:
    """Sessions of ten minutes whose memory starts anew, grows, and has noise of 2 MiB."""
    random = np.random.default_rng(seed)
    return [
        [
            Sample(t, base + growth_per_hour * t / 3600 + random.normal(0, 2), 10, 5, 3, 4)
            for t in range(0, 600, 10)
        ]
        for base in random.uniform(400, 600, count)
    ]


def test_slope_finds_growth_within_sessions() -> None:
    found = slope(sessions(60.0), "memory_mib")
    assert found is not None and found.sessions == 12 and found.differs_from_zero
    assert found.low < 60 < found.high


def test_slope_excludes_zero_by_chance_in_few_of_many_soaks() -> None:
    found = [slope(sessions(0.0, seed=seed), "memory_mib") for seed in range(200)]
    assert sum(each is not None and each.differs_from_zero for each in found) <= 20


def test_slope_of_a_constant_is_zero() -> None:
    found = slope(sessions(0.0), "ports")
    assert found is not None and found.per_hour == pytest.approx(0) and not found.differs_from_zero


def test_slope_needs_five_long_sessions() -> None:
    *four, last = sessions(0.0, count=5)
    assert slope([*four, last[:20]], "files") is None
    assert slope([*four, last], "files") is not None


def test_sample_reads_the_figures_of_this_process() -> None:
    now = sample(psutil.Process(os.getpid()), 1.0)
    assert all(getattr(now, name) >= (name not in ("ports",)) for name in FIGURES)
