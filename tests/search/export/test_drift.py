"""Drift in a history of rates, in simulated nights."""

from __future__ import annotations

import math
import random

import pytest

from search.export.drift import MAX_REPEATS, NOISE, detect_drift


def nights(source: random.Random, levels: list[float]) -> list[bool]:
    """Return for each night whether drift is found, with repeats as `servetune recheck` takes."""
    history: list[float] = []
    found = []
    for level in levels:
        for _ in range(MAX_REPEATS):
            history.append(100 * level * math.exp(source.gauss(0, NOISE)))
            drift = detect_drift(100.0, history)
            if not drift.is_uncertain:
                break
        found.append(drift.is_drift)
    return found


@pytest.mark.parametrize(("earlier", "share"), [(0, 0.9), (3, 0.9), (20, 0.9)])
def test_detect_drift_finds_a_tenth_within_three_nights(earlier: int, share: float) -> None:
    source = random.Random(1)
    levels = [1.0] * earlier + [0.9] * 3
    found = sum(any(nights(source, levels)[earlier:]) for _ in range(300))
    assert found >= 300 * share


def test_detect_drift_is_rarely_wrong() -> None:
    source = random.Random(2)
    alarms = sum(sum(nights(source, [1.0] * 100)) for _ in range(40))
    assert alarms / 40 <= 1


def test_detect_drift_starts_again_after_a_drift() -> None:
    history = [100.0] * 10 + [80.0] * 3
    drift = detect_drift(100.0, history)
    assert drift.is_drift and drift.ratio == pytest.approx(0.8, abs=0.03)
    assert not detect_drift(100.0, [*history, 100.0]).is_drift


def test_detect_drift_ignores_a_higher_rate() -> None:
    assert detect_drift(100.0, [130.0] * 20).sum == 0


def test_detect_drift_reports_a_rate_of_nothing() -> None:
    assert detect_drift(100.0, [100.0, 0.0]).is_drift
    assert not detect_drift(100.0, [0.0, 100.0]).is_drift
