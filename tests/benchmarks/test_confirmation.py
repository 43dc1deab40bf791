"""Confirmations of simulated servers keep their promises; a short form of `make bench-confirm`."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.confirmation import Case, Noise, Simulated, cases, simulate, simulate_all
from search.confirmation.race import RaceRules

RUNS = 80


def run(rates: tuple[float, ...], noise: Noise, **changes: object) -> list[Simulated]:
    case = Case("test", rates, noise, rules=RaceRules(rounds=40))
    return simulate_all(replace(case, **changes), RUNS)  # type: ignore[arg-type]


def test_noise_has_the_stated_standard_deviation() -> None:
    begun_s = [20.0 * n for n in range(4000)]
    for wander_s in (None, 3.0, 15.0, 60.0):
        noise = Noise(0.05, wander_s).visits(begun_s, np.random.default_rng(0))
        assert np.std(noise) == pytest.approx(0.05, rel=0.08)
        neighbors = np.corrcoef(noise[:-1], noise[1:])[0, 1]
        assert (neighbors > 0.2) == (wander_s == 60.0)


def test_simulate_depends_on_the_seed_alone() -> None:
    case = cases()[3]
    assert simulate(case, 5) == simulate(case, 5) != simulate(case, 6)


@pytest.mark.parametrize("wander_s", [None, 60.0], ids=["independent", "wandering"])
def test_confirmation_of_equal_configurations_shows_no_difference(wander_s: float | None) -> None:
    found = run((100.0, 100.0), Noise(0.05, wander_s))
    assert sum(s.differs for s in found) <= 10, "5 % are expected, 4 of 80"
    finalists = run((50.0, 100.0, 100.0), Noise(0.05, wander_s))
    assert sum(s.differs for s in finalists) <= 10


def test_confirmation_of_15_minutes_finds_a_difference_of_5_percent() -> None:
    found = run((100.0, 105.0), Noise(0.05))
    assert sum(s.differs and s.winner_share == 1 for s in found) >= 0.86 * RUNS
    assert all(s.seconds <= 920 for s in found)


def test_confirmation_intervals_cover_and_the_winner_is_not_flattered() -> None:
    found = run((50.0, 100.0, 100.0, 100.0), Noise(0.08))
    assert sum(s.ratio_covers for s in found) >= 0.86 * RUNS
    assert sum(s.prediction_covers for s in found) >= 0.86 * RUNS
    assert abs(np.mean([s.winner_error for s in found])) < 0.01


def test_confirmation_of_a_quiet_host_is_short() -> None:
    quiet, noisy = (run((100.0, 105.0), Noise(sd)) for sd in (0.01, 0.05))
    assert np.mean([s.seconds for s in quiet]) < 0.5 * np.mean([s.seconds for s in noisy])
