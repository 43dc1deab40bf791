"""What a race visits, drops and finds."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from search.confirmation.estimates import REFERENCE
from search.confirmation.noise import Variance
from search.confirmation.race import Race, RaceRules


def raced(
    rates: Sequence[float],
    sd: float = 0.02,
    rounds: int = 12,
    rules: RaceRules | None = None,
    seed: int = 0,
    prior: Variance | None = None,
) -> tuple[Race, list[list[int]]]:
    """Run a race of configurations with these true rates; return it and what each round visited."""
    random = np.random.default_rng(seed)
    race, visited = Race(len(rates), rules or RaceRules(rounds), prior), []
    while due := race.due():
        visited.append(due)
        race.record({i: rates[i] * math.exp(random.normal(0, sd)) for i in due})
    return race, visited


def test_race_interleaves_and_reverses_every_second_round() -> None:
    _, visited = raced([90.0, 100.0, 100.0], rounds=4)
    assert visited == [[0, 1, 2], [2, 1, 0], [0, 1, 2], [2, 1, 0]]


def test_race_visits_reference_far_behind_less_often() -> None:
    _, visited = raced([10.0, 100.0], sd=0.2, rounds=12)
    assert [0 in due for due in visited] == [n in (0, 2, 6) for n in range(12)]


def test_race_knows_from_the_search_that_reference_is_far_behind() -> None:
    race = Race(2, RaceRules(10), reference_share=0.1)
    for _ in range(2):
        race.record({0: None, 1: 100.0})
    assert race.due() == [1], "its visits showed nothing so far"


def test_race_does_not_visit_reference_that_does_not_serve_again() -> None:
    race = Race(2, RaceRules(10))
    for _ in range(4):
        race.record({index: 100.0 if index else 0.0 for index in race.due()})
    assert race.estimates.failures == {0: 2} and race.due() == [1]
    assert race.ratio_to_reference(1) is None


def test_race_drops_third_finalist_two_standard_errors_behind() -> None:
    race, visited = raced([50.0, 100.0, 80.0, 99.0])
    assert race.dropped[2].rounds == 3 and race.dropped[2].shown is None
    assert all(2 not in due for due in visited[3:])
    assert 3 in visited[4], "of the last two, one is dropped only if it is shown to be slower"


def test_race_shows_that_one_of_two_finalists_is_slower() -> None:
    race, visited = raced([50.0, 100.0, 85.0])
    drop = race.dropped[2]
    assert drop.best == 1 and drop.shown is not None and drop.shown.high < 1
    assert drop.rounds < len(visited), "the later rounds estimate the winner alone"
    assert race.comparison(2, 1) == drop.shown, "later visits do not revoke what was shown"


def test_race_finds_no_difference_of_equal_finalists() -> None:
    shown = sum(bool(raced([50.0, 100.0, 100.0], rounds=8, seed=n)[0].dropped) for n in range(60))
    assert shown <= 7


def test_race_estimates_winner_in_rounds_that_did_not_choose_it() -> None:
    rates, errors = [50.0, 100.0, 100.0, 100.0], []
    for seed in range(150):
        race, _ = raced(rates, sd=0.08, rounds=12, seed=seed)
        assert race.is_selection_separate and race.first_round(race.best()) >= 3
        errors.append((race.mean_rate(race.best()) or 0.0) / 100 - 1)
    assert abs(np.mean(errors)) < 0.006, "chosen and estimated on the same rounds: 0.02 too high"


def test_race_with_few_rounds_says_that_selection_is_not_separate() -> None:
    race, _ = raced([50.0, 100.0, 100.0], rounds=3)
    assert race.leader is not None and not race.is_selection_separate
    single, _ = raced([50.0, 100.0], rounds=3)
    assert single.is_selection_separate, "there was no choice"


def test_race_ends_when_intervals_are_narrow() -> None:
    quiet, noisy = (raced([90.0, 100.0], sd=sd, rounds=30)[1] for sd in (0.005, 0.08))
    assert len(quiet) == RaceRules(30).estimating_rounds < len(noisy) == 30


def test_race_drops_finalist_that_failed_and_needs_another_leader() -> None:
    race = Race(3, RaceRules(10))
    for number in range(8):
        rates = {0: 50.0, 1: 109.0 + 9 * (number % 2), 2: 100.0 + 9 * (number % 3)}
        if number == 7:
            rates[1] = 0.0
        race.record({index: rates[index] for index in race.due()})
    assert race.dropped.keys() == {1} and race.leader == 2
    assert race.selected_in == 8


def test_race_ends_if_nothing_is_served() -> None:
    race = Race(3, RaceRules(10))
    for _ in range(2):
        race.record(dict.fromkeys(race.due(), 0.0))
    assert race.due() == []


def test_race_of_reference_alone_estimates_it() -> None:
    race, visited = raced([100.0], sd=0.01, rounds=30)
    assert race.leader == REFERENCE and {tuple(due) for due in visited} == {(0,)}
    mean = race.estimates.mean(REFERENCE)
    assert mean is not None and mean.half_width <= RaceRules(30).precision
    assert race.prediction(REFERENCE) is not None


@pytest.mark.parametrize("rounds", [1, 2])
def test_race_of_few_rounds_is_decided(rounds: int) -> None:
    race, visited = raced([50.0, 100.0, 80.0], rounds=rounds)
    assert len(visited) == rounds and race.leader == 1


def test_race_repeats_its_decisions() -> None:
    first, again = (raced([90.0, 100.0, 100.0, 97.0], sd=0.05, seed=3) for _ in range(2))
    assert first[1] == again[1]
    assert first[0].dropped == again[0].dropped and first[0].leader == again[0].leader


def record_pair(errors: dict[int, float], rounds: int = 6, swing: float = 0.0) -> Race:
    """Run rounds of a reference and a finalist; `swing` changes both rates of a round."""
    race = Race(2, RaceRules(rounds))
    for number in range(rounds):
        factor = math.exp(swing * (-1) ** number)
        rates = {0: 100.0 * factor * (1 + 0.001 * (number % 2)), 1: 130.0 * factor}
        race.record(rates, errors)
    return race


@pytest.mark.parametrize("swing", [0.0, 0.2], ids=["apart", "paired"])
def test_race_counts_how_much_the_reference_varies_within_a_visit(swing: float) -> None:
    steady, unsteady = record_pair({}, swing=swing), record_pair({0: 0.2}, swing=swing)
    assert steady.estimates.is_paired is (swing > 0) and not steady.estimates.is_reference_unsteady
    assert unsteady.estimates.is_reference_unsteady is (swing == 0)
    narrow, wide = steady.ratio_to_reference(1), unsteady.ratio_to_reference(1)
    assert narrow is not None and wide is not None
    assert wide.high / wide.low > 1.25 > 1.02 > narrow.high / narrow.low


def test_race_ignores_the_errors_of_visits_that_failed() -> None:
    race = Race(2, RaceRules(4))
    for rate in (0.0, None, 100.0, 101.0):
        race.record({0: rate, 1: 130.0}, {} if rate else {0: 0.5})
    assert not race.estimates.is_reference_unsteady
