"""The variance of visits, its prior, and the test of their correlation."""

import numpy as np
import pytest

from search.confirmation.noise import (
    TwoWayFit,
    Variance,
    Visit,
    fit_of_correlated,
    moderated,
    prior_of,
    variance_within,
)


def visits(shared_sd: float, own_sd: float, rounds: int, seed: int) -> list[Visit]:
    """Return visits to two configurations whose noise in a round is partly the same."""
    random = np.random.default_rng(seed)
    shared = random.normal(0, shared_sd, rounds)
    return [
        Visit(index, number, index + shared[number] + random.normal(0, own_sd))
        for number in range(rounds)
        for index in range(2)
    ]


def test_variance_pooled_weights_by_degrees_of_freedom() -> None:
    assert Variance(0.01, 10).pooled(Variance(0.04, 5)) == Variance(pytest.approx(0.02), 15)
    assert Variance(0.0, 0).pooled(Variance(0.04, 5)) == Variance(0.04, 5)
    assert Variance(0.01, 3).pooled(None) == Variance(0.01, 3)


def test_moderated_lets_few_visits_share_and_many_decide() -> None:
    shared = Variance(0.01, 100)
    assert moderated(Variance(0.0, 0), shared) == Variance(0.01, 4)
    assert moderated(Variance(0.04, 400), shared).value == pytest.approx(0.04, rel=0.01)


def test_variance_within_leaves_out_differences_of_configurations() -> None:
    found = variance_within([Visit(0, n, log) for n, log in enumerate([0.0, 0.2])])
    assert found == Variance(pytest.approx(0.02), 1)
    assert variance_within([*visits(0, 0.1, 500, 0)]).value == pytest.approx(0.01, rel=0.1)
    assert variance_within([Visit(0, 0, 1.0)]).dof == 0


def test_fit_of_correlated_finds_what_a_round_shares() -> None:
    found = [fit_of_correlated(visits(0.05, 0.02, 12, seed)) for seed in range(20)]
    assert all(found)
    assert all(fit.variance.value < 0.02**2 * 3 for fit in found if fit)


def test_fit_of_correlated_is_rarely_wrong() -> None:
    found = [fit_of_correlated(visits(0.0, 0.05, 12, seed)) for seed in range(200)]
    assert sum(fit is not None for fit in found) <= 20


def test_fit_of_correlated_needs_enough_visits() -> None:
    assert fit_of_correlated([]) is None
    assert fit_of_correlated(visits(0.1, 0.0001, 2, 0)) is None


def test_two_way_fit_uses_incomplete_rounds() -> None:
    every = visits(0.2, 1e-9, 6, 1)
    fit = TwoWayFit([v for v in every if v.index == 1 or v.round in (0, 3)])
    difference, factor = fit.difference(1, 0)
    assert difference == pytest.approx(1.0, abs=1e-6)
    assert factor == pytest.approx(1.0), "two rounds have both: 2 / 2"


def test_prior_of_runs_that_agree_counts_more() -> None:
    random = np.random.default_rng(0)
    agree = [Variance(0.0025 * random.chisquare(20) / 20, 20) for _ in range(10)]
    differ = [Variance(0.0025 * np.exp(random.normal(0, 1.5)), 20) for _ in range(10)]
    same, other = prior_of(agree), prior_of(differ)
    assert same is not None and other is not None
    assert same.value == pytest.approx(0.0025, rel=0.2) and same.dof > 2 * other.dof
    assert same.dof <= 20, "it never outweighs the run itself"


def test_prior_of_one_run_counts_little() -> None:
    prior = prior_of([Variance(0.0025, 40)])
    assert prior is not None and prior.dof == 3
    assert prior.value == pytest.approx(0.0025, rel=0.5)
    assert prior_of([]) is None
    assert prior_of([Variance(0.0, 10), Variance(0.01, 0)]) is None, "nothing is known of noise"
