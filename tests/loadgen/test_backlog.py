"""Tests of the overload of a window from its backlog."""

import numpy as np
import pytest

from benchmarks.repeated import NOISE_MODELS, excluded_share
from loadgen.backlog import UNKNOWN, overload, trend

BIN_S = 0.02


def outstanding(
    growth_rps: float, seconds: float, noise: float = 0.0, saw: float = 0.0
) -> np.ndarray:
    time = np.arange(0, seconds, BIN_S)
    generator = np.random.default_rng(1)
    return (
        growth_rps * time
        + saw * (np.arange(time.size) % 20) / 20
        + noise * generator.normal(size=time.size)
        + 20
    )


@pytest.mark.parametrize("growth", [0.0, 0.02, 0.1])
def test_overload_is_the_growth_of_the_backlog(growth: float) -> None:
    found = overload(outstanding(100 * growth, 10, noise=2, saw=30), BIN_S, 100, 0.4)
    assert found.fraction == pytest.approx(growth, abs=0.003)
    assert found.low <= found.fraction <= found.high < found.low + 0.01


def test_overload_ignores_a_sawtooth_within_a_cycle() -> None:
    found = overload(outstanding(0, 8, saw=64), BIN_S, 160, 0.4)
    assert found.high < 0.01


def test_overload_bounds_cover_as_stated() -> None:
    """About one in ten windows without growth excludes 0: each bound is wrong in 5 %."""
    generator = np.random.default_rng(3)
    wrong = 0
    for _ in range(200):
        found = overload(20 + 3 * generator.normal(size=400), BIN_S, 100, 0.2)
        wrong += not found.low <= 0 <= found.high
    assert 4 <= wrong <= 36


def test_overload_of_a_short_window_is_unknown() -> None:
    assert overload(outstanding(50, 1), BIN_S, 100, 0.4) is UNKNOWN


@pytest.mark.parametrize("model", NOISE_MODELS)
@pytest.mark.parametrize("cycles", [9, 12, 20, 53])
def test_overload_of_half_the_width_is_rarely_excluded(model: str, cycles: int) -> None:
    """The share of 10 % is that of the definition; 300 windows vary by 3.5 %."""
    assert excluded_share(model, cycles, windows=300) <= 0.135


def test_trend_finds_the_slope_of_a_random_walk() -> None:
    generator = np.random.default_rng(5)
    found = [trend(0.5 * np.arange(40) + np.cumsum(generator.normal(size=40))) for _ in range(100)]
    assert np.mean([slope for slope, _, _ in found]) == pytest.approx(0.5, abs=0.05)
    # The slope of a random walk is its mean step: its error is 1 / √39, not that of a line.
    assert np.median([error for _, error, _ in found]) == pytest.approx(0.196, rel=0.1)
