"""Which configuration a confirmation recommends."""

from __future__ import annotations

import pytest

from search.confirmation.confirmation import Confirmation
from search.confirmation.noise import Variance
from search.confirmation.plan import VERIFICATION, Plan
from search.confirmation.race import RaceRules
from search.trial.result import TrialResult
from serving.configuration.config import ServerConfig
from tests.results import result_for, trial_result, visit_for

#: Sustained rate and capacity of each trial of the search; trial 2 sustained little of its capacity.
SEARCHED = {0: (1.4, 1.4), 1: (227.0, 240.0), 2: (162.0, 244.0)}
PRIOR = Variance(0.0016, 20)


def confirmation_of(
    visits: dict[int, float], verified: dict[int, float | None] | None = None
) -> Confirmation:
    """Return a confirmation of one round of trials 0, the reference, 1 and 2."""
    searched = [
        trial_result(number, rps, ServerConfig(workers=number + 1), capacity_rps=capacity_rps)
        for number, (rps, capacity_rps) in SEARCHED.items()
    ]
    plan = Plan.of(searched, searched[0], 2)
    stored: dict[str, dict[str, TrialResult]] = {"0": {}, VERIFICATION: {}}
    for request in plan.requests:
        digest = request.config.digest
        stored["0"][digest] = visit_for(request, visits[request.number])
        if verified and request.number in verified:
            result = result_for(request, verified[request.number], capacity_rps=240.0)
            stored[VERIFICATION][digest] = result
    return Confirmation.read(stored, plan, RaceRules(1), lambda visit: PRIOR)


def winner_of(confirmation: Confirmation) -> int:
    return confirmation.plan.requests[confirmation.winner].number


@pytest.mark.parametrize(
    ("visits", "verified", "winner"),
    [
        pytest.param({0: 1.0, 1: 222.0, 2: 238.0}, {}, 1, id="alike, not verified"),
        pytest.param({0: 1.0, 1: 130.0, 2: 238.0}, {}, 2, id="shown to be faster, not verified"),
        pytest.param({0: 1.0, 1: 222.0, 2: 238.0}, {2: 230.0}, 2, id="verified"),
        pytest.param({0: 1.0, 1: 222.0, 2: 238.0}, {2: None}, 1, id="verified to sustain nothing"),
        pytest.param({0: 1.0, 1: 238.0, 2: 222.0}, {}, 1, id="the leader sustained more"),
        pytest.param({0: 300.0, 1: 222.0, 2: 238.0}, {}, 0, id="the reference is faster"),
        pytest.param({0: 233.0, 1: 228.0, 2: 238.0}, {}, 2, id="the other is slower than it"),
    ],
)
def test_winner_of_an_unverified_confirmation_sustained_most_in_the_search(
    visits: dict[int, float], verified: dict[int, float | None], winner: int
) -> None:
    confirmation = confirmation_of(visits, verified)
    assert winner_of(confirmation) == winner
    assert all(comparison.index != confirmation.winner for comparison in confirmation.comparisons)
